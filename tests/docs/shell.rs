//! A terminal that runs commands as a page shows them: in a folder of its own, with the program, etcd and
//! etcdctl on its path and certificates at hand, and with other hosts and ports than the page names.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::process::Process;
use crate::support::release::{NEWEST, binary};
use crate::support::tls::Tls;
use crate::support::{exit_cleanup, ports};

/// No server takes longer to start, no command to end.
const LIMIT: Duration = Duration::from_secs(60);

/// The port that pages have etcd at.
const ETCD: &str = "2379";

/// One page's commands run here, in their order. Dropping it ends what they have started.
pub(crate) struct Shell {
    cluster: Option<Arc<Cluster>>,
    // Before the folder that they work in.
    servers: Vec<Process>,
    ports: BTreeMap<String, u16>,
    dir: tempfile::TempDir,
    // Its folder holds what the links in `dir` lead to.
    _tls: Tls,
}

/// A command of a page, and what the page shows of its output.
#[derive(Debug)]
struct Step {
    command: String,
    /// Nothing is compared where the page shows nothing.
    output: Vec<String>,
    fails: bool,
}

impl Shell {
    /// A terminal in front of a cluster: `infra0` to `infra2` are its members, and port 2379 of this host
    /// is the first of them, unless a command of the page listens there. Without one nothing runs.
    pub(crate) fn open(cluster: Option<Arc<Cluster>>) -> Shell {
        let dir = exit_cleanup::temp_dir();
        let at = |name: &str| dir.path().join(name);
        let edge = Path::new(env!("CARGO_BIN_EXE_etcd-edge"));
        std::fs::create_dir_all(at("bin")).expect("a folder");
        std::fs::create_dir_all(at("target/release")).expect("a folder");
        let link = |from: &Path, name: &str| symlink(from, at(name)).expect("a link");
        link(edge, "bin/etcd-edge");
        link(edge, "target/release/etcd-edge");
        for name in ["etcd", "etcdctl"] {
            link(&binary(NEWEST, name), &format!("bin/{name}"));
        }
        let tls = Tls::generate();
        let server = ["peer", "proxy-server", "server"].map(|name| (name, &tls.server));
        let client = ["client", "proxy-client"].map(|name| (name, &tls.client));
        for (name, identity) in server.into_iter().chain(client) {
            link(&identity.cert, &format!("{name}.crt"));
            link(&identity.key, &format!("{name}.key"));
        }
        for name in ["ca.crt", "ca.pem", "proxy-ca.pem"] {
            link(&tls.ca, name);
        }
        Shell {
            cluster,
            servers: Vec::new(),
            ports: BTreeMap::new(),
            dir,
            _tls: tls,
        }
    }

    /// Runs the commands of some blocks of one page, and compares what they print with what it shows.
    pub(crate) fn run(&mut self, page: &str, blocks: &[&str]) {
        let steps: Vec<Step> = blocks.iter().flat_map(|block| steps(block)).collect();
        self.place(page, &steps);
        for step in &steps {
            let command = self.translate(page, &step.command);
            match serves(&step.command) {
                Some(ready) => self.serve(page, &command, ready),
                None => self.finish(page, step, &command),
            }
        }
    }

    /// Gives a port to each that the page names.
    fn place(&mut self, page: &str, steps: &[Step]) {
        let listens = steps.iter().any(|step| listens(&step.command, ETCD));
        if let (false, Some(cluster)) = (listens, &self.cluster) {
            let (_, port) = address(&cluster.endpoint(0));
            self.ports.entry(ETCD.to_owned()).or_insert(port);
        }
        let all: Vec<String> = steps.iter().map(|step| step.command.clone()).collect();
        for (host, port) in all.iter().flat_map(|command| addresses(command)) {
            if let (Some(_), Some(port)) = (self.host(page, &host), port) {
                self.ports.entry(port).or_insert_with(ports::take);
            }
        }
    }

    /// The host of this machine that stands for one of the page's; none for a member's, whose port goes
    /// with it.
    fn host(&self, page: &str, host: &str) -> Option<&'static str> {
        match host {
            "localhost" => Some("localhost"),
            "127.0.0.1" | "0.0.0.0" => Some("127.0.0.1"),
            _ if host.starts_with("10.0.") => Some("127.0.0.1"),
            _ if member(host).is_some() => None,
            _ => panic!("{page}: no host stands for {host:?}; mark the block, or see tests/docs"),
        }
    }

    /// A text of the page with the hosts and ports that stand for its own.
    fn translate(&self, page: &str, text: &str) -> String {
        let mut out = String::new();
        for word in words(text) {
            let (host, port) = match addresses(word).pop() {
                Some((host, port)) => (host, port),
                None => {
                    out.push_str(word);
                    continue;
                }
            };
            match (self.host(page, &host), port) {
                (Some(host), Some(port)) => {
                    let port = self.ports.get(&port).copied();
                    let port = port.unwrap_or_else(|| panic!("{page}: {word} is nobody's"));
                    out.push_str(&format!("{host}:{port}"));
                }
                _ => {
                    let cluster = self.cluster.as_ref();
                    let cluster = cluster.unwrap_or_else(|| panic!("{page}: there is no {host}"));
                    out.push_str(&cluster.endpoint(member(&host).expect("looked at")));
                }
            }
        }
        out
    }

    /// Starts what runs until it is stopped, and waits until it is ready.
    fn serve(&mut self, page: &str, command: &str, ready: &str) {
        let line = command.trim_end().trim_end_matches('&');
        let peers = format!("http://127.0.0.1:{}", ports::take());
        let mut shell = self.shell(&format!("exec {line}"));
        // What etcd would otherwise have at a port of its own choice.
        shell
            .env("ETCD_LISTEN_PEER_URLS", &peers)
            .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", &peers)
            .env("ETCD_INITIAL_CLUSTER", format!("default={peers}"));
        let mut process = Process::spawn(&format!("{page}: {command}"), &mut shell);
        let said = process.wait_line(LIMIT, |line| line.contains(ready).then_some(()));
        said.unwrap_or_else(|why| panic!("{page}: {command}\n{why}"));
        self.servers.push(process);
    }

    /// Runs what ends by itself.
    fn finish(&mut self, page: &str, step: &Step, command: &str) {
        let curl = || Command::new("curl").arg("--version").output().is_ok();
        if command.starts_with("curl ") && !curl() {
            println!("{page}: there is no curl on this machine: {command}");
            return;
        }
        let mut shell = self.shell(&format!(
            "timeout {} sh -c '{}'",
            LIMIT.as_secs(),
            command.replace('\'', r"'\''")
        ));
        let done = shell.output().expect("sh starts");
        assert_eq!(
            done.status.success(),
            !step.fails,
            "{page}: {command}\n{done:?}"
        );
        if step.output.is_empty() {
            return;
        }
        let said = String::from_utf8_lossy(&done.stdout);
        let said: Vec<&str> = said.lines().collect();
        let shown = step.output.iter().map(|line| self.translate(page, line));
        let shown: Vec<String> = shown.collect();
        assert!(
            all_fit(&shown, &said),
            "{page}: {command}\nshown: {shown:#?}\nsaid: {said:#?}"
        );
    }

    fn shell(&self, line: &str) -> Command {
        let bin: PathBuf = self.dir.path().join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", bin.display()))
            // A proxy for the web is none for loopback.
            .env("no_proxy", "*")
            .env("NO_PROXY", "*");
        command
    }
}

/// The commands of a block: each begins with `$ `, goes on behind a `\` at the end of a line, and is
/// followed by what it prints. A line `# fails` says that the next one does.
fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut goes_on, mut fails) = (false, false);
    for line in block.lines() {
        if goes_on {
            let step = steps.last_mut().expect("one was begun");
            step.command.push('\n');
            step.command.push_str(line);
            goes_on = line.ends_with('\\');
        } else if let Some(command) = line.strip_prefix("$ ") {
            goes_on = command.ends_with('\\');
            steps.push(Step {
                command: command.to_owned(),
                output: Vec::new(),
                fails: std::mem::take(&mut fails),
            });
        } else if line.starts_with("# ") {
            fails = line == "# fails";
        } else if let Some(step) = steps.last_mut() {
            step.output.push(line.to_owned());
        }
    }
    steps
}

/// What a server says when it is ready; nothing for a command that ends by itself.
fn serves(command: &str) -> Option<&'static str> {
    let mut words = command.split_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    let rest: Vec<&str> = words.collect();
    match (program, rest.first().copied()) {
        _ if rest
            .iter()
            .any(|word| ["--help", "--version"].contains(word)) =>
        {
            None
        }
        ("etcd-edge", Some("start" | "grpc-proxy")) => Some("started gRPC proxy"),
        ("etcd", Some(flag)) if flag.starts_with("--") => Some("ready to serve client requests"),
        _ => None,
    }
}

/// Whether a command is a server at this port.
fn listens(command: &str, port: &str) -> bool {
    let flags = ["--listen-addr", "--listen-client-urls"];
    let values = flags.iter().filter_map(|flag| {
        let (_, rest) = command.split_once(flag)?;
        rest[1..].split_whitespace().next()
    });
    let port = format!(":{port}");
    serves(command).is_some() && values.into_iter().any(|value| value.ends_with(&port))
}

/// Whether what was said is what is shown; a line `…` stands for any lines.
fn all_fit(shown: &[String], said: &[&str]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((line, rest)) if line == "…" => (0..=said.len()).any(|n| all_fit(rest, &said[n..])),
        Some((line, rest)) => said
            .split_first()
            .is_some_and(|(first, more)| fits(line, first) && all_fit(rest, more)),
    }
}

/// Whether a line is as it is shown; `…` stands for anything.
fn fits(shown: &str, said: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = said.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in between {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A text in pieces: those that may hold a host and a port, and those between them.
fn words(text: &str) -> Vec<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| part(c) != part(first)).unwrap_or(rest.len());
        let (word, more) = rest.split_at(end);
        words.push(word);
        rest = more;
    }
    words
}

/// The hosts that a text names, each with its port where there is one: a piece `host:port`, or a member.
fn addresses(text: &str) -> Vec<(String, Option<String>)> {
    let named = words(text).into_iter().filter_map(|word| {
        if member(word).is_some() {
            return Some((word.to_owned(), None));
        }
        let (host, port) = word.rsplit_once(':')?;
        let number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        (number && !host.is_empty()).then(|| (host.to_owned(), Some(port.to_owned())))
    });
    named.collect()
}

/// Which member a name is.
fn member(host: &str) -> Option<usize> {
    let name = host.strip_suffix(".example.com").unwrap_or(host);
    name.strip_prefix("infra")?.parse().ok().filter(|n| *n < 3)
}

fn address(text: &str) -> (String, u16) {
    let (host, port) = text.rsplit_once(':').expect("host:port");
    (host.to_owned(), port.parse().expect("a port"))
}

#[test]
fn what_a_page_shows_is_split_into_commands_and_their_output() {
    let block = "$ one --flag \\\n    more\n# fails\n$ two\nsaid\n# and\n$ three # why\n";
    let steps = steps(block);
    let commands: Vec<&str> = steps.iter().map(|step| &step.command[..]).collect();
    assert_eq!(commands, ["one --flag \\\n    more", "two", "three # why"]);
    assert_eq!(steps[1].output, ["said"]);
    assert!(steps[1].fails && !steps[2].fails);
    assert!(listens("etcd-edge start --listen-addr=h:1 --debug", "1"));
    assert!(!listens("etcd-edge start --endpoints=h:1", "1"));
    assert!(!listens(
        "etcdctl --endpoints=h:1 get --listen-addr h:1",
        "1"
    ));
    assert!(fits("a…b…c", "a1b2c") && fits("a…", "a") && fits("a", "a"));
    let shown = ["…", "b", "…"].map(str::to_owned);
    assert!(all_fit(&shown, &["a", "b"]) && !all_fit(&shown, &["a", "c"]));
    assert!(!all_fit(&shown[..2], &["b", "c"]) && all_fit(&[], &[]));
    assert!(!fits("a…b", "a1c") && !fits("a", "ab") && !fits("a…b…", "ac"));
}
