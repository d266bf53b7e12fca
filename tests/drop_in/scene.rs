//! Clusters and certificates for both programs, and one run of a program.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::ports;
use crate::support::process::Process;
use crate::support::release::{NEWEST, binary};
use crate::support::tls::{CertFiles, Tls};

/// Longer than the Go proxy waits for its first connection to etcd.
const LIMIT: Duration = Duration::from_secs(30);
/// Rows that run at the same time.
const PARALLEL: usize = 4;

/// A program under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This proxy.
    Edge,
    /// The Go proxy of a release of etcd.
    Go(&'static str),
}

/// How a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Plain,
    /// TLS without a certificate. The certificate of the proxy is not verified.
    Tls,
    /// TLS with a certificate. The certificate of the proxy is verified.
    Mutual,
    /// TLS with a certificate on the revocation list.
    Revoked,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) started: bool,
    /// Whether each client, in the given order, put and got a key.
    pub(crate) served: Vec<bool>,
    pub(crate) log: String,
}

/// One member without TLS, one with TLS that requires client certificates, and files for both sides.
pub(crate) struct Scene {
    plain: Cluster,
    secure: Cluster,
    revoked: CertFiles,
}

impl Scene {
    pub(crate) fn start() -> Scene {
        let secure = Cluster::builder(NEWEST).tls().start();
        let serial = 77;
        let revoked = secure.tls().issue("revoked", |params| {
            params.serial_number = Some(serial.into());
        });
        let list = secure.tls().revocation_list(&[serial]);
        secure.tls().write("list.crl", list.der());
        secure.tls().write("list.pem", list.pem().expect("a list"));
        secure.tls().write("empty.pem", "");
        secure.tls().write("version1.pem", VERSION_1);
        Scene {
            plain: Cluster::start(NEWEST, 1),
            secure,
            revoked,
        }
    }

    fn tls(&self) -> &Tls {
        self.secure.tls()
    }

    /// Splits flags at blanks and replaces names: `HTTP` and `HTTPS` are the URLs of the members,
    /// `FILE(name)` is a path, `DIR` a folder, `ADDR` the address of the proxy, `PORT` a free port,
    /// `EMPTY` the empty text.
    pub(crate) fn flags(&self, flags: &str, address: &str) -> Vec<String> {
        let replace = |word: &str| {
            let word = match word.split_once("FILE(") {
                Some((before, rest)) => {
                    let (name, after) = rest.split_once(')').expect("FILE(name)");
                    format!("{before}{}{after}", self.tls().path(name).display())
                }
                None => word.to_owned(),
            };
            let word = word.replace("HTTPS", &format!("https://{}", self.secure.endpoint(0)));
            let word = word.replace("HTTP", &format!("http://{}", self.plain.endpoint(0)));
            let word = word.replace("ADDR", address).replace("EMPTY", "");
            word.replace("PORT", &ports::take().to_string())
        };
        flags.split_whitespace().map(replace).collect()
    }

    /// Starts the program with the first flags of etcd's end-to-end tests and with `flags`, and
    /// connects with each client.
    pub(crate) fn run(&self, program: Program, flags: &str, clients: &[Client]) -> Run {
        loop {
            let address = format!("localhost:{}", ports::take());
            let run = self.run_at(program, &address, flags, clients);
            if run.started || !run.log.contains("already in use") && !run.log.contains("in use (os")
            {
                return run;
            }
        }
    }

    fn run_at(&self, program: Program, address: &str, flags: &str, clients: &[Client]) -> Run {
        let mut command = match program {
            Program::Edge => Command::new(env!("CARGO_BIN_EXE_etcd-edge")),
            Program::Go(version) => Command::new(binary(version, "etcd")),
        };
        let dir = tempfile::tempdir().expect("a folder");
        command.args(["grpc-proxy", "start", "--listen-addr", address]);
        command.arg("--data-dir").arg(dir.path());
        command.args(self.flags(flags, address));
        let mut process = Process::spawn("proxy", &mut command);
        let ready = process.wait_line(LIMIT, |line| {
            line.contains("started gRPC proxy").then_some(())
        });
        let served = match ready {
            Ok(()) => clients
                .iter()
                .map(|client| self.serves(address, *client))
                .collect(),
            Err(_) => Vec::new(),
        };
        // The Go proxy may end just after this line.
        std::thread::sleep(Duration::from_millis(200));
        Run {
            started: ready.is_ok() && process.exited().is_none(),
            served,
            log: short(&process.log()),
        }
    }

    fn serves(&self, address: &str, client: Client) -> bool {
        let key = format!("drop-in/{address}");
        let run = |args: &[&str]| {
            let mut command = Command::new(binary(NEWEST, "etcdctl"));
            command.arg(format!("--endpoints={address}"));
            command.args(self.client_flags(client)).args(args);
            command.output().expect("etcdctl starts")
        };
        run(&["put", &key, "value"]).status.success()
            && run(&["get", &key, "--print-value-only"]).stdout == b"value\n"
    }

    fn client_flags(&self, client: Client) -> Vec<String> {
        let mutual = |files: &CertFiles| {
            vec![
                format!("--cacert={}", self.tls().ca.display()),
                format!("--cert={}", files.cert.display()),
                format!("--key={}", files.key.display()),
            ]
        };
        match client {
            Client::Plain => Vec::new(),
            Client::Tls => vec![
                "--insecure-transport=false".to_owned(),
                "--insecure-skip-tls-verify".to_owned(),
            ],
            Client::Mutual => mutual(&self.tls().client),
            Client::Revoked => mutual(&self.revoked),
        }
    }
}

/// Returns the warnings about settings, and the last lines.
fn short(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(4);
    let kept = lines.iter().enumerate();
    let kept = kept.filter(|(at, line)| *at >= last || line.contains(r#""setting""#));
    kept.map(|(_, line)| format!("{line}\n")).collect()
}

/// Checks all rows, several at a time. Panics with all errors.
pub(crate) fn check_rows<R: Sync>(rows: &[R], check: impl Fn(&R) -> Result<(), String> + Sync) {
    let (next, errors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = check(row) {
                        errors.lock().expect("no panic").push(error);
                    }
                }
            });
        }
    });
    let errors = errors.into_inner().expect("no panic");
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n\n"));
}

/// A certificate of X.509 version 1 and its key, as from `openssl x509 -req` without extensions.
const VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBJDCBywIUGF0HcGV78kPhZGPpEUcAtRualaowCgYIKoZIzj0EAwIwFDESMBAG
A1UECgwJdmVyc2lvbiAxMCAXDTI2MTIwMTAxMjEzOFoYDzIxMjYxMTA3MDEyMTM4
WjAUMRIwEAYDVQQKDAl2ZXJzaW9uIDEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQkQp+G9CW7A+p28rrP4Ls5C+MbD/zXyG8TZdH9gMMyA0zM2yV8ibeakTCwa58t
6bBvYfhojXQpckoVYY1FPC0+MAoGCCqGSM49BAMCA0gAMEUCIQCLf7UXcsQPHBj3
kgkchLtZ6jLF8bxjUZ7PEaQlL8PnMAIgNgXoe+LQGsE7GFsiw/0jTkXU2GvHn9sn
bEh4kx+RSBo=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgw8y9Llexc0VnPdkH
UouxqAa0eFr0u5i2L2JFJ+WSHkShRANCAAQkQp+G9CW7A+p28rrP4Ls5C+MbD/zX
yG8TZdH9gMMyA0zM2yV8ibeakTCwa58t6bBvYfhojXQpckoVYY1FPC0+
-----END PRIVATE KEY-----
";
