//! The steps of the contract with etcdctl. It cannot cancel a watch and keep the stream, so that
//! step is left out.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::contract::{Mode, Run, Target};
use crate::support::process::Process;
use crate::support::release::binary;

const LIMIT: Duration = Duration::from_secs(20);

type Step = Result<(), String>;

struct Etcdctl<'a> {
    version: &'a str,
    target: &'a Target<'a>,
    /// Prefix of all keys.
    prefix: String,
}

/// Returns the names of the steps.
pub(crate) fn steps(mode: Mode) -> Vec<String> {
    let mut steps = mode.steps();
    steps.retain(|step| step != "watch cancel");
    steps
}

/// Runs the steps until one fails.
pub(crate) fn run(version: &str, target: &Target<'_>) -> Run {
    let etcdctl = Etcdctl {
        version,
        target,
        prefix: format!("clients/etcdctl-{version}-{}/", target.endpoint),
    };
    type Method<'a> = fn(&Etcdctl<'a>) -> Step;
    let all: [(&str, Method<'_>); 8] = [
        ("put", Etcdctl::put),
        ("get", Etcdctl::get),
        ("txn", Etcdctl::txn),
        ("watch", Etcdctl::watch),
        ("watch resume", Etcdctl::watch_resume),
        ("lease", Etcdctl::lease),
        ("lease expiry", Etcdctl::lease_expiry),
        ("lock", Etcdctl::lock),
    ];
    let auth: (&str, Method<'_>) = ("auth", Etcdctl::auth);
    let auth = target.user().map(|_| auth);
    let mut run = Run {
        success: true,
        steps: Vec::new(),
        output: String::new(),
    };
    for (name, step) in all.into_iter().chain(auth) {
        match step(&etcdctl) {
            Ok(()) => run.steps.push(name.to_owned()),
            Err(why) => {
                run.success = false;
                run.output = format!("{:?}, then {name}: {why}", run.steps);
                break;
            }
        }
    }
    run
}

impl Etcdctl<'_> {
    fn command(&self, user: Option<String>, args: &[&str]) -> Command {
        let mut command = Command::new(binary(self.version, "etcdctl"));
        command.arg(format!("--endpoints={}", self.target.endpoint));
        command.args(self.target.tls_flags());
        command.args(user.map(|user| format!("--user={user}")));
        command.args(args);
        command
    }

    fn user(&self) -> Option<String> {
        let user = self.target.user();
        user.map(|(user, password)| format!("{user}:{password}"))
    }

    /// Runs a command, which must succeed, and returns its output.
    fn ok(&self, args: &[&str]) -> Result<String, String> {
        let done = self.command(self.user(), args).output();
        let done = done.map_err(|error| error.to_string())?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(format!("{args:?}: {done:?}")),
        }
    }

    /// Runs a command, which must print this.
    fn expect(&self, args: &[&str], expected: &str) -> Step {
        let output = self.ok(args)?;
        check(output == expected, || format!("{args:?}: {output:?}"))
    }

    /// Starts a command that runs until it is stopped.
    fn start(&self, args: &[&str]) -> Process {
        Process::spawn("etcdctl", &mut self.command(self.user(), args))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn put(&self) -> Step {
        self.expect(&["put", &self.key("key"), "value"], "OK\n")
    }

    fn get(&self) -> Step {
        let expected = format!("{}\nvalue\n", self.key("key"));
        self.expect(&["get", "--prefix", &self.prefix], &expected)?;
        self.expect(&["get", "--consistency=s", &self.key("key")], &expected)
    }

    fn txn(&self) -> Step {
        let key = self.key("key");
        let script = format!("value(\"{key}\") = \"value\"\n\nput {key} changed\n\nget {key}\n\n");
        let failure = format!("FAILURE\n\n{key}\nchanged\n");
        for expected in ["SUCCESS\n\nOK\n", &failure] {
            let mut command = self.command(self.user(), &["txn"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut txn = command.spawn().map_err(|error| error.to_string())?;
            let mut stdin = txn.stdin.take().ok_or("no pipe")?;
            stdin
                .write_all(script.as_bytes())
                .map_err(|e| e.to_string())?;
            drop(stdin);
            let done = txn.wait_with_output().map_err(|error| error.to_string())?;
            let output = String::from_utf8_lossy(&done.stdout);
            check(output == expected, || format!("{done:?}"))?;
        }
        Ok(())
    }

    /// Receives the events of other clients, in order.
    fn watch(&self) -> Step {
        let put = self.ok(&["put", &self.key("watch/first"), "0", "-w", "json"])?;
        let put: serde_json::Value = serde_json::from_str(&put).map_err(|e| e.to_string())?;
        // A start revision makes the order independent of when the watch opens.
        let from = format!("--rev={}", put["header"]["revision"]);
        let keys = self.key("watch/");
        let mut watch = self.start(&["watch", "--prefix", &from, &keys]);
        wait(&mut watch, "0")?;
        self.ok(&["put", &self.key("watch/a"), "1"])?;
        self.ok(&["put", &self.key("watch/b"), "2"])?;
        self.ok(&["del", &self.key("watch/a")])?;
        self.ok(&["put", &self.key("watch/last"), "end"])?;
        wait(&mut watch, "end")?;
        let expected = [
            "PUT", "first", "0", "PUT", "a", "1", "PUT", "b", "2", "DELETE", "a", "", "PUT",
            "last", "end",
        ];
        self.expect_events(&watch, &expected)
    }

    /// Starts at a revision of the past.
    fn watch_resume(&self) -> Step {
        let get = self.ok(&["get", &self.key("watch/b"), "-w", "json"])?;
        let get: serde_json::Value = serde_json::from_str(&get).map_err(|e| e.to_string())?;
        let from = format!("--rev={}", get["kvs"][0]["mod_revision"]);
        let mut watch = self.start(&["watch", "--prefix", &from, &self.key("watch/")]);
        wait(&mut watch, "end")?;
        let expected = ["PUT", "b", "2", "DELETE", "a", "", "PUT", "last", "end"];
        self.expect_events(&watch, &expected)
    }

    fn expect_events(&self, watch: &Process, expected: &[&str]) -> Step {
        let prefix = self.key("watch/");
        let log = watch.log();
        let events: Vec<&str> = log
            .lines()
            .map(|line| line.strip_prefix(prefix.as_str()).unwrap_or(line))
            .collect();
        check(events == expected, || format!("received {events:?}"))
    }

    fn lease(&self) -> Step {
        let lease = self.grant("2")?;
        let key = self.key("leased");
        self.expect(&["put", &key, "1", &format!("--lease={lease}")], "OK\n")?;
        let mut renewing = self.start(&["lease", "keep-alive", &lease]);
        let mut heartbeats = 0;
        let renewed = renewing.wait_line(LIMIT, |line| {
            heartbeats += u32::from(line.contains("keepalived with TTL(2)"));
            (heartbeats == 4).then_some(())
        });
        renewed?;
        let left = self.ok(&["lease", "timetolive", "--keys", &lease])?;
        check(left.contains("TTL(2s)") && left.contains(&key), || left)?;
        let revoked = format!("lease {lease} revoked\n");
        self.expect(&["lease", "revoke", &lease], &revoked)?;
        self.expect(&["get", &key], "")
    }

    fn lease_expiry(&self) -> Step {
        let lease = self.grant("1")?;
        let key = self.key("expires");
        self.expect(&["put", &key, "1", &format!("--lease={lease}")], "OK\n")?;
        let until = Instant::now() + LIMIT;
        while !self.ok(&["get", &key])?.is_empty() {
            check(Instant::now() < until, || format!("{key} still exists"))?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn grant(&self, ttl: &str) -> Result<String, String> {
        let granted = self.ok(&["lease", "grant", ttl])?;
        let id = granted.split_whitespace().nth(1);
        id.map(str::to_owned).ok_or(granted)
    }

    /// Hands a lock over from one etcdctl to another one that waits.
    fn lock(&self) -> Step {
        let name = self.key("lock");
        let mut holder = self.start(&["lock", &name]);
        holder.wait_line(LIMIT, |line| line.starts_with(&name).then_some(()))?;
        let mut waiter = self.start(&["lock", &name, "echo", "now mine"]);
        let until = Instant::now() + LIMIT;
        let queue = format!("{name}/");
        // The waiter's key shows that it is in the queue.
        while self
            .ok(&["get", "--prefix", "--keys-only", &queue])?
            .split_whitespace()
            .count()
            < 2
        {
            check(Instant::now() < until, || "no second lock".to_owned())?;
        }
        check(waiter.log().is_empty(), || waiter.log())?;
        holder.signal("INT");
        wait(&mut waiter, "now mine")
    }

    /// Expects refusals for another user's key and for a wrong password.
    fn auth(&self) -> Step {
        let wrong = self.target.user().map(|(user, _)| format!("{user}:wrong"));
        let refusals = [
            (self.user(), "forbidden", "permission denied"),
            (wrong, "clients/key", "authentication failed"),
        ];
        for (user, key, expected) in refusals {
            let run = self.command(user, &["get", key]).output();
            let run = run.map_err(|error| error.to_string())?;
            let error = String::from_utf8_lossy(&run.stderr);
            let good = !run.status.success() && error.contains(expected);
            check(good, || format!("{expected}: {run:?}"))?;
        }
        Ok(())
    }
}

fn wait(process: &mut Process, line: &str) -> Step {
    process.wait_line(LIMIT, |each| (each == line).then_some(()))
}

fn check(good: bool, why: impl FnOnce() -> String) -> Step {
    if good { Ok(()) } else { Err(why()) }
}
