//! Runs commands as a page shows them: in a temporary folder with certificates, with etcd-edge, etcd and
//! etcdctl on its path, and with other hosts and ports than the page names.

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

/// Maximum time for a server to start, and for a command to end.
const LIMIT: Duration = Duration::from_secs(60);

/// Port of etcd on the pages, and the one that etcd listens on by default.
const ETCD: &str = "2379";

/// Port that the proxy listens on by default.
const PROXY: &str = "23790";

/// Flags of the proxy and of etcd with the address for clients.
const LISTEN_FLAGS: [&str; 2] = ["--listen-addr", "--listen-client-urls"];

/// Runs the commands of one page in their order. Dropping it ends the servers they started.
pub(crate) struct Shell {
    cluster: Option<Arc<Cluster>>,
    // Dropped before their working folder.
    servers: Vec<Process>,
    ports: BTreeMap<String, u16>,
    dir: tempfile::TempDir,
    // Its folder contains the targets of the links in `dir`.
    _tls: Tls,
}

/// A command of a page, with the output that the page shows.
#[derive(Debug)]
struct Step {
    command: String,
    /// Empty if the page shows no output; then nothing is compared.
    output: Vec<String>,
    fails: bool,
}

impl Shell {
    /// Creates a shell. With a cluster, `infra0` to `infra2` are its members, and port 2379 of this host is
    /// the first of them, unless a command of the page listens there. Without one, no etcd is running.
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

    /// Runs the commands of blocks of one page, and compares their output with the page.
    pub(crate) fn run(&mut self, page: &str, blocks: &[&str]) {
        let mut steps: Vec<Step> = blocks.iter().flat_map(|block| steps(block)).collect();
        for step in &mut steps {
            step.command = with_listen_address(&step.command);
        }
        self.assign_ports(page, &steps);
        for step in &steps {
            let command = self.translate(page, &step.command);
            match serves(&step.command) {
                Some(ready) => self.serve(page, &command, ready),
                None => self.finish(page, step, &command),
            }
        }
    }

    /// Assigns a free port to each port that the page names.
    fn assign_ports(&mut self, page: &str, steps: &[Step]) {
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

    /// Host of this machine for a host of the page. `None` for a cluster member, which has its own port.
    fn host(&self, page: &str, host: &str) -> Option<&'static str> {
        match host {
            "localhost" => Some("localhost"),
            "127.0.0.1" | "0.0.0.0" => Some("127.0.0.1"),
            _ if host.starts_with("10.0.") => Some("127.0.0.1"),
            _ if member(host).is_some() => None,
            _ => panic!("{page}: unknown host {host:?}; mark the block, or see tests/docs"),
        }
    }

    /// Replaces the hosts and ports of the page by those of this machine.
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
                    let port = port.unwrap_or_else(|| panic!("{page}: no port for {word}"));
                    out.push_str(&format!("{host}:{port}"));
                }
                _ => {
                    let cluster = self.cluster.as_ref();
                    let cluster =
                        cluster.unwrap_or_else(|| panic!("{page}: no cluster for {host}"));
                    out.push_str(&cluster.endpoint(member(&host).expect("a member, by `host`")));
                }
            }
        }
        out
    }

    /// Starts a server and waits until it is ready.
    fn serve(&mut self, page: &str, command: &str, ready: &str) {
        let line = command.trim_end().trim_end_matches('&');
        let peers = format!("http://127.0.0.1:{}", ports::take());
        let mut shell = self.shell(&format!("exec {line}"));
        // Otherwise etcd uses its default peer port.
        shell
            .env("ETCD_LISTEN_PEER_URLS", &peers)
            .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", &peers)
            .env("ETCD_INITIAL_CLUSTER", format!("default={peers}"));
        let mut process = Process::spawn(&format!("{page}: {command}"), &mut shell);
        let started = process.wait_line(LIMIT, |line| line.contains(ready).then_some(()));
        started.unwrap_or_else(|error| panic!("{page}: {command}\n{error}"));
        self.servers.push(process);
    }

    /// Runs a command that ends by itself.
    fn finish(&mut self, page: &str, step: &Step, command: &str) {
        let curl = || Command::new("curl").arg("--version").output().is_ok();
        if command.starts_with("curl ") && !curl() {
            println!("{page}: skipped, curl is not installed: {command}");
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
        let printed = String::from_utf8_lossy(&done.stdout);
        let printed: Vec<&str> = printed.lines().collect();
        let shown = step.output.iter().map(|line| self.translate(page, line));
        let shown: Vec<String> = shown.collect();
        assert!(
            all_fit(&shown, &printed),
            "{page}: {command}\nshown: {shown:#?}\nprinted: {printed:#?}"
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
            // A web proxy does not apply to loopback.
            .env("no_proxy", "*")
            .env("NO_PROXY", "*");
        command
    }
}

/// Parses the commands of a block. Each begins with `$ `, continues after a `\` at the end of a line, and is
/// followed by its output. The command after a line `# fails` must fail.
fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut goes_on, mut fails) = (false, false);
    for line in block.lines() {
        if goes_on {
            let step = steps.last_mut().expect("a command has begun");
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

/// Log text of a server that is ready. `None` for a command that ends by itself.
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

/// Adds the default address to the command of a server that names none, so that the address is
/// replaced like all others. A test must not listen on a fixed port: another process may use it.
fn with_listen_address(command: &str) -> String {
    let flag = match serves(command) {
        Some(_) if LISTEN_FLAGS.iter().any(|flag| command.contains(flag)) => {
            return command.to_owned();
        }
        Some("started gRPC proxy") => format!("--listen-addr=127.0.0.1:{PROXY}"),
        Some(_) => format!(
            "--listen-client-urls=http://127.0.0.1:{ETCD} --advertise-client-urls=http://127.0.0.1:{ETCD}"
        ),
        None => return command.to_owned(),
    };
    let line = command.trim_end().trim_end_matches('&').trim_end();
    format!("{line} {flag}")
}

/// Whether a command starts a server at this port.
fn listens(command: &str, port: &str) -> bool {
    let values = LISTEN_FLAGS.iter().filter_map(|flag| {
        let (_, rest) = command.split_once(flag)?;
        rest[1..].split_whitespace().next()
    });
    let port = format!(":{port}");
    serves(command).is_some() && values.into_iter().any(|value| value.ends_with(&port))
}

/// Whether printed lines match the shown ones; a line `…` matches any lines.
fn all_fit(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=printed.len()).any(|n| all_fit(rest, &printed[n..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, more)| fits(line, first) && all_fit(rest, more)),
    }
}

/// Whether a printed line matches the shown one; `…` matches any text.
fn fits(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else {
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

/// Splits a text into words that may contain a host and a port, and the text between them.
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

/// Hosts in a text, each with its port if it has one: words `host:port`, and cluster members.
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

/// Index of the cluster member with this name.
fn member(host: &str) -> Option<usize> {
    let name = host.strip_suffix(".example.com").unwrap_or(host);
    name.strip_prefix("infra")?.parse().ok().filter(|n| *n < 3)
}

fn address(text: &str) -> (String, u16) {
    let (host, port) = text.rsplit_once(':').expect("host:port");
    (host.to_owned(), port.parse().expect("a port"))
}

#[test]
fn blocks_are_split_into_commands_and_output() {
    let block = "$ one --flag \\\n    more\n# fails\n$ two\nout\n# and\n$ three # x\n";
    let steps = steps(block);
    let commands: Vec<&str> = steps.iter().map(|step| &step.command[..]).collect();
    assert_eq!(commands, ["one --flag \\\n    more", "two", "three # x"]);
    assert_eq!(steps[1].output, ["out"]);
    assert!(steps[1].fails && !steps[2].fails);
    assert_eq!(with_listen_address(commands[0]), commands[0]);
    assert_eq!(
        with_listen_address("etcd-edge start --debug &"),
        "etcd-edge start --debug --listen-addr=127.0.0.1:23790"
    );
    assert!(listens(&with_listen_address("etcd --name=x"), ETCD));
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
