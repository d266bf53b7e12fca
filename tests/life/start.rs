//! Start: the ready line, and errors that prevent a start.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::check_config::check_config;
use crate::support::proxy::Proxy;
use crate::support::tls::Tls;
use crate::support::{exit_cleanup, http, proxy_output};

/// An unreachable etcd: the proxy starts without one (E4).
const NOWHERE: &str = "--endpoints=127.0.0.1:1";

#[test]
fn ready_line_is_one_json_object() {
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
    // Each worker thread sets its name when it starts to run.
    let until = Instant::now() + Duration::from_secs(20);
    while workers(&proxy) != 3 {
        assert!(Instant::now() < until, "{} workers", workers(&proxy));
        std::thread::sleep(Duration::from_millis(10));
    }
    // The listener accepts connections once the line is written.
    assert_eq!(http::get(proxy.address(), "/nothing").unwrap().status, 404);
}

/// Returns the number of worker threads.
fn workers(proxy: &Proxy) -> usize {
    let tasks = format!("/proc/{}/task", proxy.process.pid());
    let tasks = std::fs::read_dir(tasks).expect("the child is ours");
    let names = tasks
        .flatten()
        .flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
    names.filter(|name| name.starts_with("worker-")).count()
}

#[test]
fn debug_lines_appear_only_with_debug() {
    for (flag, expected) in [("--debug", true), ("--debug=false", false)] {
        let mut proxy = Proxy::start_with(&[NOWHERE, flag]);
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(b"neither HTTP nor TLS\r\n\r\n").unwrap();
        drop(client);
        let failed = "etcd_edge_handshake_failures_total";
        proxy_output::wait_metric(proxy.address(), failed, Duration::from_secs(20), |n| {
            n == 1.0
        });
        let is_debug = |line: &str| line.contains(r#""level":"debug""#).then_some(());
        if expected {
            let line = proxy.process.wait_line(Duration::from_secs(20), is_debug);
            line.expect("a debug line about the failed handshake");
        } else {
            let log = proxy.process.log();
            assert!(log.lines().all(|line| is_debug(line).is_none()), "{log}");
        }
    }
}

#[test]
fn port_in_use_is_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let log = fails(&[NOWHERE, &format!("--listen-addr={address}")]);
    assert!(
        log.contains("--listen-addr") && log.contains(&address),
        "{log}"
    );
    assert!(log.to_lowercase().contains("in use"), "{log}");
}

#[test]
fn unusable_file_is_reported_with_its_flag() {
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
            let log = fails(&flags);
            assert_names(&log, flag, bad);
            // `check-config` reports the same error.
            let (code, error) = check_config(&flags);
            assert_eq!(code, Some(1), "{error}");
            assert!(log.ends_with(&error), "{error}:\n{log}");
        }
    }
    // The key of another certificate.
    let other = &tls.client.key;
    let log = fails(&[
        NOWHERE.to_owned(),
        format!("--cert-file={}", cert.display()),
        format!("--key-file={}", other.display()),
    ]);
    assert!(
        log.contains("--cert-file") || log.contains("--key-file"),
        "{log}"
    );
}

#[track_caller]
fn assert_names(log: &str, flag: &str, path: &Path) {
    let named = format!("{flag}={}", path.display());
    assert!(log.contains(&named), "{named} is missing:\n{log}");
    let plain = log.lines().filter(|line| !line.starts_with('{')).count();
    assert_eq!(plain, 1, "one plain-text line:\n{log}");
}

/// Starts the proxy, which must exit with code 1, and returns its output.
#[track_caller]
fn fails<I: AsRef<str>>(flags: &[I]) -> String {
    let mut process = Proxy::spawn(flags);
    let status = process.wait(Duration::from_secs(20));
    // The last lines may still be in the pipe.
    std::thread::sleep(Duration::from_millis(50));
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}
