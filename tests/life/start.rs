//! The start: how it is announced, and what prevents it.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::check;
use crate::support::proxy::Proxy;
use crate::support::tls::Tls;
use crate::support::{exit_cleanup, http, proxy_output};

/// An etcd that nobody needs: the proxy starts without one (E4).
const NOWHERE: &str = "--endpoints=127.0.0.1:1";

#[test]
fn it_is_announced_in_the_log_in_one_json_line() {
    let proxy = Proxy::start_with(&[NOWHERE, "--workers=3"]);
    let log = proxy.process.log();
    let line = log.lines().find(|line| line.contains("started gRPC proxy"));
    let entry: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(entry["level"], "info");
    assert_eq!(entry["msg"], "started gRPC proxy");
    assert_eq!(entry["address"], proxy.address());
    assert_eq!(entry["workers"], 3);
    assert!(
        entry["caller"].as_str().unwrap().starts_with("src/"),
        "{entry}"
    );
    let ts = entry["ts"].as_str().unwrap();
    let shape: String = ts
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{ts}");
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect(line);
        for key in ["level", "ts", "caller", "msg"] {
            assert!(entry[key].is_string(), "{key} in {line}");
        }
    }
    // So many threads serve; each takes its name when it begins to run.
    let until = Instant::now() + Duration::from_secs(20);
    while workers(&proxy) != 3 {
        assert!(Instant::now() < until, "{} workers", workers(&proxy));
        std::thread::sleep(Duration::from_millis(10));
    }
    // Who reads that line may connect.
    assert_eq!(http::get(proxy.address(), "/nothing").unwrap().status, 404);
}

/// How many of its threads are workers.
fn workers(proxy: &Proxy) -> usize {
    let tasks = format!("/proc/{}/task", proxy.process.pid());
    let tasks = std::fs::read_dir(tasks).expect("the child is ours");
    let names = tasks
        .flatten()
        .flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
    names.filter(|name| name.starts_with("worker-")).count()
}

#[test]
fn more_is_logged_where_it_is_asked_for() {
    for (flag, told) in [("--debug", true), ("--debug=false", false)] {
        let mut proxy = Proxy::start_with(&[NOWHERE, flag]);
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(b"neither HTTP nor TLS\r\n\r\n").unwrap();
        drop(client);
        let failed = "etcd_edge_handshake_failures_total";
        proxy_output::wait_metric(proxy.address(), failed, Duration::from_secs(20), |n| {
            n == 1.0
        });
        let is_debug = |line: &str| line.contains(r#""level":"debug""#).then_some(());
        if told {
            let line = proxy.process.wait_line(Duration::from_secs(20), is_debug);
            line.expect("why its first request never came");
        } else {
            let log = proxy.process.log();
            assert!(log.lines().all(|line| is_debug(line).is_none()), "{log}");
        }
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = fails(&[NOWHERE, &format!("--listen-addr={address}")]);
    assert!(
        said.contains("--listen-addr") && said.contains(&address),
        "{said}"
    );
    assert!(said.to_lowercase().contains("in use"), "{said}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_flag() {
    let tls = Tls::generate();
    let dir = exit_cleanup::temp_dir();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let missing = dir.path().join("missing.pem");
    let bad = [
        missing.clone(),
        dir.path().to_owned(),
        write("empty.pem", ""),
        write(
            "garbage.pem",
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        ),
    ];
    let (cert, key) = (&tls.server.cert, &tls.server.key);
    for bad in &bad {
        let cases = [
            (
                "--cert-file",
                vec![("--cert-file", bad), ("--key-file", key)],
            ),
            (
                "--key-file",
                vec![("--cert-file", cert), ("--key-file", bad)],
            ),
            (
                "--trusted-ca-file",
                vec![
                    ("--cert-file", cert),
                    ("--key-file", key),
                    ("--trusted-ca-file", bad),
                ],
            ),
            ("--cacert", vec![("--cacert", bad)]),
            ("--cert", vec![("--cert", bad), ("--key", key)]),
            ("--key", vec![("--cert", cert), ("--key", bad)]),
        ];
        for (flag, files) in cases {
            let mut flags = vec!["--endpoints=https://127.0.0.1:1".to_owned()];
            let show =
                |(flag, path): &(&str, &std::path::PathBuf)| format!("{flag}={}", path.display());
            flags.extend(files.iter().map(show));
            let said = fails(&flags);
            assert_names(&said, flag, bad);
            // Who only asks is told the same.
            let (code, asked) = check::ask(&flags);
            assert_eq!(code, Some(1), "{asked}");
            assert!(said.ends_with(&asked), "{asked}:\n{said}");
        }
    }
    // A key that belongs to another certificate.
    let other = &tls.client.key;
    let said = fails(&[
        NOWHERE.to_owned(),
        format!("--cert-file={}", cert.display()),
        format!("--key-file={}", other.display()),
    ]);
    assert!(
        said.contains("--cert-file") || said.contains("--key-file"),
        "{said}"
    );
}

#[track_caller]
fn assert_names(said: &str, flag: &str, path: &Path) {
    let named = format!("{flag}={}", path.display());
    assert!(said.contains(&named), "{named} is not named:\n{said}");
    let complaints = said.lines().filter(|line| !line.starts_with('{')).count();
    assert_eq!(complaints, 1, "one line for people:\n{said}");
}

/// What a start that must fail with exit code 1 said.
#[track_caller]
fn fails<I: AsRef<str>>(flags: &[I]) -> String {
    let mut process = Proxy::spawn(flags);
    let status = process.wait(Duration::from_secs(20));
    // The last lines are on their way through a pipe.
    std::thread::sleep(Duration::from_millis(50));
    let said = process.log();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}
