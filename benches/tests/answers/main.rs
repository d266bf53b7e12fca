//! A target that answers wrongly fails the run, whatever it answers wrongly; one that answers
//! rightly does not. The target is a small etcd of our own that can be told to lie.

mod liar;

use std::path::Path;
use std::process::{Command, Output};

use liar::{Answer, Liar};

/// Reads, writes and transactions of three keys for a moment.
fn bench(lie: fn(&mut Answer)) -> Output {
    let liar = Liar::start(lie);
    // What it writes must not get in the way of other runs.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("answers-{}", liar.port()));
    Command::new(env!("CARGO_BIN_EXE_etcd-edge-bench"))
        .env("CARGO_TARGET_DIR", folder)
        .arg(format!("--address=liar=127.0.0.1:{}", liar.port()))
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
fn right_answers_pass() {
    let output = bench(|_| {});
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("| liar |"), "{report}");
    assert!(!report.contains("failed"), "{report}");
    // No terminal, no progress.
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// A lie, and what the report says of it.
type Lie = (fn(&mut Answer), &'static str);

const LIES: &[Lie] = &[
    (|answer| answer.http = 503, "HTTP 503"),
    (
        |answer| answer.grpc = Some("13"),
        "grpc-status Some(\"13\")",
    ),
    (|answer| answer.grpc = None, "grpc-status None"),
    (|answer| answer.body_cut = 1, "frame of"),
    (|answer| answer.pairs = 0, "answer with 0 pairs"),
    (|answer| answer.pairs = 2, "answer with 2 pairs"),
    (|answer| answer.key[0] ^= 1, "another key"),
    (|answer| answer.value.push(0), "another value"),
    (|answer| answer.value.truncate(15), "another value"),
    (
        |answer| *answer.value.last_mut().unwrap() ^= 1,
        "another value",
    ),
    // What was right before the last put of the key, but no longer.
    (|answer| answer.mod_revision = 1, "stale"),
    (
        |answer| answer.revision = answer.mod_revision - 1,
        "revision",
    ),
    (|answer| answer.succeeded = false, "succeeded 0"),
];

#[test]
fn every_lie_fails_the_run() {
    std::thread::scope(|scope| {
        for (number, (lie, told)) in LIES.iter().enumerate() {
            scope.spawn(move || {
                let output = bench(*lie);
                let report = String::from_utf8(output.stdout).unwrap();
                let errors = String::from_utf8(output.stderr).unwrap();
                assert_eq!(
                    output.status.code(),
                    Some(1),
                    "lie {number}: {report}{errors}"
                );
                assert!(errors.contains(told), "lie {number}: {errors}");
                assert!(report.contains("failed"), "lie {number}: {report}");
            });
        }
    });
}

#[test]
fn usage_is_told_apart() {
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
    // Nobody listens where a socket is only bound.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("--address=dead={}", dead.local_addr().unwrap());
    assert_eq!(run(&[&address, "unary"]).status.code(), Some(1));
}
