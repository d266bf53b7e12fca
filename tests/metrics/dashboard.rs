//! Tests of the dashboard and the alert rules in `deploy/`. A real Prometheus scrapes a proxy under
//! load: the proxy has every metric that they name, and every panel has data.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::page::Page;
use crate::promql::{Names, names};
use crate::promtool::program;
use crate::support::pb::Msg;
use crate::support::process::Process;
use crate::support::{exit_cleanup, ports};
use crate::{FullProxy, LIMIT, RANGE, calls};

/// Metrics and labels of Prometheus itself.
const PROMETHEUS_METRICS: [&str; 1] = ["up"];
const PROMETHEUS_LABELS: [&str; 3] = ["job", "instance", "le"];

/// A Prometheus with the alert rules that scrapes one proxy.
struct Prometheus {
    address: String,
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(pages: &str) -> Prometheus {
        let directory = exit_cleanup::temp_dir();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - {{job_name: etcd-edge, metrics_path: /proxy/metrics, static_configs: [targets: ['{pages}']]}}\n",
            rules.display()
        );
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, config).expect("a writable directory");
        let address = format!("127.0.0.1:{}", ports::take());
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Process::spawn("prometheus", &mut command);
        let ready = |line: &str| line.contains("Server is ready").then_some(());
        if let Err(error) = process.wait_line(LIMIT, ready) {
            panic!("not ready: {error}");
        }
        Prometheus {
            address,
            _process: process,
            _directory: directory,
        }
    }

    /// Sends an API request and returns its data.
    fn api(&self, path: &str, query: &str) -> Value {
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "10", "--noproxy", "*", "--get"])
            .args(["--data-urlencode", &format!("query={query}")])
            .arg(format!("http://{}/api/v1/{path}", self.address))
            .output()
            .expect("curl starts");
        let response: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(response["status"], "success", "{query}: {response}");
        response["data"].clone()
    }

    /// Reports whether a query has a value that is a number.
    fn has(&self, query: &str) -> bool {
        let data = self.api("query", query);
        let series = data["result"].as_array().expect("a vector");
        let is_number = |value: &Value| value.as_str().is_some_and(|value| value != "NaN");
        series.iter().any(|series| is_number(&series["value"][1]))
    }
}

/// Returns every query of the dashboard, with the title of its panel and with its variables
/// replaced.
fn panels() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/etcd-edge.json");
    let text = std::fs::read_to_string(path).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        if panel["type"] == "row" {
            continue;
        }
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let query = query.replace("$__rate_interval", "5s");
            let query = query.replace("$job", ".*").replace("$instance", ".*");
            assert!(!query.contains('$'), "{query}");
            queries.push((title.to_owned(), query));
        }
    }
    queries
}

/// Returns the queries of the dashboard's variables.
fn variables() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/etcd-edge.json");
    let text = std::fs::read_to_string(path).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let all = dashboard["templating"]["list"].as_array();
    let all = all.expect("variables").iter();
    let series = all.filter_map(|variable| {
        let query = variable["query"]["query"].as_str()?;
        let series = query.strip_prefix("label_values(")?.strip_suffix(')')?;
        Some(series.rsplit_once(',')?.0.replace("$job", ".*"))
    });
    series.collect()
}

/// Checks that every metric and label in a query belongs to the proxy or to Prometheus.
fn assert_exist(query: &str, page: &Page) {
    let Names { metrics, labels } = names(query);
    assert!(!metrics.is_empty(), "{query}");
    let mut shown: BTreeSet<&str> = PROMETHEUS_LABELS.into();
    for metric in &metrics {
        match page.labels.get(metric) {
            Some(sets) => shown.extend(sets.iter().flatten().map(String::as_str)),
            None => assert!(
                PROMETHEUS_METRICS.contains(&&metric[..]),
                "no metric {metric}: {query}"
            ),
        }
    }
    for label in &labels {
        assert!(shown.contains(&label[..]), "no label {label}: {query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_and_alert_rules_have_data() {
    let full = FullProxy::start();
    let prometheus = Prometheus::start(&full.pages);
    let client = full.client().await;
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = stopped.clone();
    let load = tokio::spawn(async move {
        let mut open = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            open.extend(calls(&client).await.0);
            for _ in 0..3 {
                let read = Msg::new().bytes(1, "k").int(7, 1);
                client.unary(RANGE, read, &[]).await;
            }
            // A few watches that share an upstream watcher are enough.
            open.truncate(6);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // Rates need a second scrape.
    let panels = panels();
    let until = Instant::now() + LIMIT;
    loop {
        let empty = panels.iter().filter(|(_, query)| !prometheus.has(query));
        let empty: Vec<_> = empty.collect();
        if empty.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "no data: {empty:#?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let page = Page::of(&full.pages);
    for (_, query) in &panels {
        assert_exist(query, &page);
    }
    for series in variables() {
        assert_exist(&series, &page);
        assert!(prometheus.has(&series), "{series}");
    }
    let rules = prometheus.api("rules", "");
    let rules = rules["groups"][0]["rules"].as_array().expect("a group");
    assert_eq!(rules.len(), 14);
    for rule in rules {
        assert_exist(rule["query"].as_str().expect("a query"), &page);
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
    stopped.store(true, Ordering::Relaxed);
    load.await.expect("calls that succeed");
}
