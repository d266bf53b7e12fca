//! What promtool says of the metrics and of the alert rules.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::page;
use crate::{Lit, calls};

/// Gauges of Go's proxy that are named as if they were counters. Dashboards ask for them.
const INHERITED: [&str; 4] = [
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
];

/// A program of Prometheus', as `scripts/get-prometheus.sh` leaves it.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus");
    let path = path.join(name);
    assert!(path.exists(), "scripts/get-prometheus.sh puts {name} there");
    path
}

/// Runs promtool with this on its standard input.
pub(crate) fn promtool(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program("promtool"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    // It reads all of it before it says anything; an error is one of its own, and is in its output.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("promtool ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_fault_with_inherited_names_only() {
    let lit = Lit::start();
    let _open = calls(&lit.client().await).await;
    let said = promtool(&["check", "metrics"], &page::text(&lit.pages));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let expected = INHERITED
        .map(|name| format!("{name} non-counter metrics should not have \"_total\" suffix"));
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn promtool_takes_the_alert_rules() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    for args in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let done = Command::new(program("promtool"))
            .args(args)
            .current_dir(folder)
            .output()
            .expect("promtool starts");
        assert!(done.status.success(), "{args:?}: {done:?}");
    }
}
