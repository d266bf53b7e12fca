//! Tests of the metrics and the alert rules with promtool.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::page;
use crate::{FullProxy, calls};

/// Gauges of Go's proxy with names of counters. Dashboards use them.
const INHERITED: [&str; 4] = [
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
];

/// Returns the path of a Prometheus program, installed by `scripts/get-prometheus.sh`.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus");
    let path = path.join(name);
    assert!(
        path.exists(),
        "run scripts/get-prometheus.sh to install {name}"
    );
    path
}

/// Runs promtool with `input` on its standard input.
pub(crate) fn promtool(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program("promtool"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // promtool reads its whole input first. If it fails earlier, its output has the error.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("promtool ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_reports_only_inherited_names() {
    let full = FullProxy::start();
    let (_open, _) = calls(&full.client().await).await;
    let output = promtool(&["check", "metrics"], &page::text(&full.pages));
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = INHERITED
        .map(|name| format!("{name} non-counter metrics should not have \"_total\" suffix"));
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn promtool_accepts_the_alert_rules() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    for args in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let done = Command::new(program("promtool"))
            .args(args)
            .current_dir(directory)
            .output()
            .expect("promtool starts");
        assert!(done.status.success(), "{args:?}: {done:?}");
    }
}
