//! Settings that a proxy may accept, warn about, or refuse: the table of docs/migrating.md.

use std::process::Command;

use crate::scene::{Client, Program, Scene, check_rows};
use crate::support::release::NEWEST;

/// How a program reacts to a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    /// It starts. The client that fits puts and gets a key.
    Starts,
    /// It starts with a warning about this setting, and the client puts and gets a key.
    Warns(&'static str),
    /// It starts and does not serve the client.
    StartsInVain,
    Refuses,
}

use Client::{Mutual, Plain, Tls};
use Reaction::{Refuses, Starts, StartsInVain, Warns};

/// Flags, the client that fits, the reaction of the Go proxy, and that of this one.
type Row = (&'static str, Client, Reaction, Reaction);

const CRL: &str = "--client-crl-file";
const SUITES: &str = "--listen-cipher-suites";
const VALIDITY: &str = "--self-signed-cert-validity";

/// `CERT` is a certificate with its key, `CA` the bundle for clients, `UP` the files for etcd.
const ROWS: &[Row] = &[
    // Revocation lists.
    (
        "--client-crl-file FILE(list.crl)",
        Plain,
        Starts,
        Warns(CRL),
    ),
    ("--client-crl-file FILE(missing)", Plain, Starts, Warns(CRL)),
    (
        "CERT --client-crl-file FILE(list.crl)",
        Tls,
        Starts,
        Warns(CRL),
    ),
    (
        "CERT --client-crl-file FILE(missing)",
        Tls,
        Starts,
        Warns(CRL),
    ),
    (
        "--auto-tls --client-crl-file FILE(list.crl)",
        Tls,
        Starts,
        Warns(CRL),
    ),
    (
        "CERT CA --client-crl-file FILE(list.crl)",
        Mutual,
        Starts,
        Starts,
    ),
    (
        "CERT CA --client-crl-file FILE(list.pem)",
        Mutual,
        StartsInVain,
        Starts,
    ),
    (
        "CERT CA --client-crl-file FILE(missing)",
        Mutual,
        StartsInVain,
        Refuses,
    ),
    // Certificates.
    ("--trusted-ca-file FILE(ca.pem)", Plain, Refuses, Refuses),
    (
        "--trusted-ca-file FILE(ca.pem) --auto-tls",
        Mutual,
        Refuses,
        StartsInVain,
    ),
    (
        "CERT --trusted-ca-file FILE(missing)",
        Mutual,
        Refuses,
        Refuses,
    ),
    ("--cert-file FILE(server.pem)", Plain, Refuses, Refuses),
    ("--key-file FILE(server-key.pem)", Plain, Refuses, Refuses),
    (
        "--cert-file FILE(missing) --key-file FILE(server-key.pem)",
        Tls,
        Refuses,
        Refuses,
    ),
    (
        "--cert-file FILE(server.pem) --key-file FILE(client-key.pem)",
        Tls,
        Refuses,
        Refuses,
    ),
    (
        "--cert-file FILE(version1.pem) --key-file FILE(version1.pem)",
        Tls,
        Starts,
        Starts,
    ),
    ("--cert FILE(client.pem)", Plain, Refuses, Refuses),
    ("--key FILE(client-key.pem)", Plain, Refuses, Refuses),
    (
        "--cert FILE(server.pem) --key FILE(server-key.pem)",
        Plain,
        Refuses,
        Refuses,
    ),
    (
        "--cert FILE(client.pem) --key FILE(server-key.pem)",
        Plain,
        Refuses,
        Refuses,
    ),
    (
        "--cert FILE(version1.pem) --key FILE(version1.pem)",
        Plain,
        Starts,
        Warns("--cert, --key"),
    ),
    ("--cacert FILE(missing)", Plain, Refuses, Refuses),
    ("--cacert FILE(ca.pem)", Plain, Refuses, Warns("--cacert")),
    ("UP", Plain, Starts, Warns("--cacert, --cert, --key")),
    ("--endpoints HTTPS UP", Plain, Starts, Starts),
    ("CERT --auto-tls", Tls, Starts, Warns("--auto-tls")),
    (
        "--auto-tls --self-signed-cert-validity 1001",
        Tls,
        Starts,
        Warns(VALIDITY),
    ),
    (
        "--auto-tls --self-signed-cert-validity 20000",
        Tls,
        Starts,
        Warns(VALIDITY),
    ),
    (
        "--auto-tls --self-signed-cert-validity 0",
        Tls,
        Refuses,
        Refuses,
    ),
    (
        "--self-signed-cert-validity 0",
        Plain,
        Starts,
        Warns(VALIDITY),
    ),
    // TLS versions and cipher suites.
    (
        "CERT --listen-cipher-suites TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA",
        Tls,
        Starts,
        Warns(SUITES),
    ),
    (
        "CERT --listen-cipher-suites TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Tls,
        Refuses,
        Starts,
    ),
    (
        "CERT --listen-cipher-suites TLS_RSA_WITH_AES_128_CBC_SHA",
        Tls,
        Refuses,
        Refuses,
    ),
    ("CERT --listen-cipher-suites UNKNOWN", Tls, Refuses, Refuses),
    (
        "--listen-cipher-suites UNKNOWN",
        Plain,
        Starts,
        Warns(SUITES),
    ),
    (
        "CERT --listen-cipher-suites TLS_AES_128_GCM_SHA256 --tls-min-version TLS1.3",
        Tls,
        Refuses,
        Refuses,
    ),
    (
        "--tls-min-version TLS1.3",
        Plain,
        Starts,
        Warns("--tls-min-version"),
    ),
    (
        "--tls-max-version TLS1.2",
        Plain,
        Starts,
        Warns("--tls-max-version"),
    ),
    ("--tls-min-version TLS1.1", Plain, Refuses, Refuses),
    (
        "--tls-min-version TLS1.3 --tls-max-version TLS1.2",
        Plain,
        Refuses,
        Refuses,
    ),
    // Arguments and values.
    ("stray", Plain, Starts, Warns("stray")),
    ("--debug false", Plain, Starts, Warns("false")),
    ("-- --unknown", Plain, Starts, Warns("--unknown")),
    ("--unknown", Plain, Refuses, Refuses),
    ("--debug=maybe", Plain, Refuses, Refuses),
    ("--max-send-bytes 1_000_000", Plain, Starts, Starts),
    (
        "--max-send-bytes -1",
        Plain,
        Starts,
        Warns("--max-send-bytes"),
    ),
    ("--max-send-bytes 1k", Plain, Refuses, Refuses),
    ("--max-concurrent-streams -1", Plain, Refuses, Refuses),
    (
        "--grpc-keepalive-min-time -1s",
        Plain,
        Starts,
        Warns("--grpc-keepalive-min-time"),
    ),
    ("--grpc-keepalive-timeout 20", Plain, Refuses, Refuses),
    // Endpoints and pages.
    ("--endpoints HTTP/path", Plain, Starts, Warns("--endpoints")),
    ("--endpoints HTTP,", Plain, Starts, Starts),
    ("--endpoints=", Plain, Refuses, Refuses),
    ("--endpoints HTTP,127.0.0.1:99999", Plain, Starts, Refuses),
    (
        "--discovery-srv-name name",
        Plain,
        Starts,
        Warns("--discovery-srv-name"),
    ),
    (
        "--insecure-discovery",
        Plain,
        Starts,
        Warns("--insecure-discovery"),
    ),
    (
        "--metrics-addr http://127.0.0.1:PORT/path",
        Plain,
        Starts,
        Warns("--metrics-addr"),
    ),
    (
        "--metrics-addr https://127.0.0.1:PORT",
        Plain,
        Refuses,
        Refuses,
    ),
    ("--metrics-addr 127.0.0.1:PORT", Plain, Refuses, Refuses),
    (
        "--metrics-addr htps://127.0.0.1:PORT",
        Plain,
        Starts,
        Refuses,
    ),
    // Registration.
    ("--resolver-prefix p", Plain, Refuses, Refuses),
    ("--resolver-ttl 5", Plain, Refuses, Refuses),
    ("--resolver-ttl -5", Plain, Starts, Warns("--resolver-ttl")),
    (
        "--resolver-prefix p --resolver-ttl 5",
        Plain,
        Refuses,
        Refuses,
    ),
    (
        "--resolver-prefix p --resolver-ttl 9000000001 --advertise-client-url ADDR",
        Plain,
        Starts,
        Warns("--resolver-ttl"),
    ),
    ("--experimental-leasing-prefix EMPTY", Plain, Starts, Starts),
    ("--experimental-leasing-prefix p", Plain, Starts, Refuses),
];

fn flags(row: &str) -> String {
    let row = row.replace(
        "CERT",
        "--cert-file FILE(server.pem) --key-file FILE(server-key.pem)",
    );
    let row = row.replace("CA ", "--trusted-ca-file FILE(ca.pem) ");
    let up = "--cert FILE(client.pem) --key FILE(client-key.pem) --cacert FILE(ca.pem)";
    let row = row.replace("UP", up);
    let endpoints = match row.contains("--endpoints") {
        true => "",
        false => "--endpoints HTTP ",
    };
    format!("--advertise-client-url= {endpoints}{row}")
}

/// Returns the flag or argument of each warning about a setting in the log.
fn warnings(log: &str) -> Vec<String> {
    let entries = log.lines().filter_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_warning = entry["msg"] == "setting has less effect than requested";
        let setting = entry["setting"].as_str().map(str::to_owned);
        setting.filter(|_| is_warning)
    });
    entries.collect()
}

#[test]
fn settings_are_accepted_warned_about_or_refused() {
    let scene = Scene::start();
    check_rows(ROWS, |(row, client, go, edge)| {
        for (program, expected) in [(Program::Go(NEWEST), *go), (Program::Edge, *edge)] {
            let run = scene.run(program, &flags(row), &[*client]);
            let warned = match program {
                Program::Edge => warnings(&run.log),
                Program::Go(_) => Vec::new(),
            };
            let serves = run.served == [true];
            let right = match expected {
                Starts => run.started && serves && warned.is_empty(),
                Warns(setting) => run.started && serves && warned == [setting],
                StartsInVain => run.started && !serves,
                Refuses => !run.started,
            };
            if !right {
                return Err(format!("{row}: {program:?}: not {expected:?}: {run:?}"));
            }
            if program == Program::Edge {
                let checked = check_config(&scene, row);
                if checked != (expected != Refuses, warned) {
                    return Err(format!("{row}: check-config differs: {checked:?}: {run:?}"));
                }
            }
        }
        Ok(())
    });
}

/// Returns whether `check-config` accepts the flags, and its warnings.
fn check_config(scene: &Scene, row: &str) -> (bool, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-edge"));
    command.arg("check-config");
    let output = command
        .args(scene.flags(&flags(row), "localhost:1"))
        .output();
    let output = output.expect("the program starts");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), warnings(&log))
}
