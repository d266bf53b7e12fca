//! Any wrong response of a target fails the run, and correct responses do not. The target is a
//! small etcd of our own that responds wrongly on demand.

mod fake_etcd;

use std::path::Path;
use std::process::{Command, Output};

use fake_etcd::{FakeEtcd, FakeResponse};

/// Runs a short load of reads, writes and transactions on three keys.
fn bench(fault: fn(&mut FakeResponse)) -> Output {
    let server = FakeEtcd::start(fault);
    // A target folder of its own: runs in parallel must not overwrite each other's reports.
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("responses-{}", server.port()));
    Command::new(env!("CARGO_BIN_EXE_etcd-edge-bench"))
        .env("CARGO_TARGET_DIR", folder)
        .arg(format!("--address=fake=127.0.0.1:{}", server.port()))
        .args([
            "--rounds=1",
            "--seconds=0.1",
            "unary",
            "--connections=2",
            "--in-flight=2",
        ])
        .args(["--keys=3", "--size=16-2000", "--mix=read=2,write=1,txn=1"])
        .output()
        .unwrap()
}

#[test]
fn correct_responses_pass() {
    let output = bench(|_| {});
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("| fake |"), "{report}");
    assert!(!report.contains("failed"), "{report}");
    // Progress is shown only on a terminal.
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// A fault, and its text on stderr.
type Fault = (fn(&mut FakeResponse), &'static str);

const FAULTS: &[Fault] = &[
    (|response| response.http = 503, "HTTP 503"),
    (
        |response| response.grpc = Some("13"),
        "grpc-status Some(\"13\")",
    ),
    (|response| response.grpc = None, "grpc-status None"),
    (|response| response.body_cut = 1, "frame of"),
    (|response| response.pairs = 0, "response with 0 pairs"),
    (|response| response.pairs = 2, "response with 2 pairs"),
    (|response| response.key[0] ^= 1, "another key"),
    (|response| response.value.push(0), "another value"),
    (|response| response.value.truncate(15), "another value"),
    (
        |response| *response.value.last_mut().unwrap() ^= 1,
        "another value",
    ),
    // A revision that was correct before the last put of the key.
    (|response| response.mod_revision = 1, "stale"),
    (
        |response| response.revision = response.mod_revision - 1,
        "revision",
    ),
    (|response| response.succeeded = false, "succeeded 0"),
];

#[test]
fn every_fault_fails_the_run() {
    std::thread::scope(|scope| {
        for (number, (fault, message)) in FAULTS.iter().enumerate() {
            scope.spawn(move || {
                let output = bench(*fault);
                let report = String::from_utf8(output.stdout).unwrap();
                let errors = String::from_utf8(output.stderr).unwrap();
                assert_eq!(
                    output.status.code(),
                    Some(1),
                    "fault {number}: {report}{errors}"
                );
                assert!(errors.contains(message), "fault {number}: {errors}");
                assert!(report.contains("failed"), "fault {number}: {report}");
            });
        }
    });
}

#[test]
fn usage_errors_have_their_own_exit_code() {
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_etcd-edge-bench");
        Command::new(program).args(arguments).output().unwrap()
    };
    for wrong in [
        &["--case=none"][..],
        &["--rounds=0"],
        &["--seconds=0"],
        &["unary", "--mix=read=0"],
        &["unary", "--size=15"],
        &["unary", "--rate=0%"],
        &["unary", "--connections=0"],
        &["walk"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert!(run(&["--list"]).stdout.starts_with(b"read-c10-m10"));
    // A bound socket that does not listen refuses connections.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("--address=dead={}", dead.local_addr().unwrap());
    assert_eq!(run(&[&address, "unary"]).status.code(), Some(1));
}
