//! The dashboard and the alert rules of `deploy/`, held against a proxy that is scraped by a real Prometheus
//! while it is called: what they name is there, and every panel has something to show.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::page::Page;
use crate::promql::{Names, names};
use crate::support::pb::Msg;
use crate::support::process::Process;
use crate::support::{exit_cleanup, ports};
use crate::tool::program;
use crate::{LIMIT, Lit, RANGE, calls};

/// Metrics and labels that come from Prometheus itself.
const ITS_METRICS: [&str; 1] = ["up"];
const ITS_LABELS: [&str; 3] = ["job", "instance", "le"];

/// A Prometheus with our rules that scrapes one proxy.
struct Prometheus {
    address: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(pages: &str) -> Prometheus {
        let folder = exit_cleanup::temp_dir();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - {{job_name: etcd-edge, metrics_path: /proxy/metrics, static_configs: [targets: ['{pages}']]}}\n",
            rules.display()
        );
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, config).expect("a folder of our own");
        let address = format!("127.0.0.1:{}", ports::take());
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Process::spawn("prometheus", &mut command);
        let ready = |line: &str| line.contains("Server is ready").then_some(());
        if let Err(why) = process.wait_line(LIMIT, ready) {
            panic!("not ready: {why}");
        }
        Prometheus {
            address,
            _process: process,
            _folder: folder,
        }
    }

    /// What its API says.
    fn api(&self, path: &str, query: &str) -> Value {
        let said = Command::new("curl")
            .args(["--silent", "--max-time", "10", "--noproxy", "*", "--get"])
            .args(["--data-urlencode", &format!("query={query}")])
            .arg(format!("http://{}/api/v1/{path}", self.address))
            .output()
            .expect("curl starts");
        let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        assert_eq!(said["status"], "success", "{query}: {said}");
        said["data"].clone()
    }

    /// Whether a query has a value, and one that is a number.
    fn has(&self, query: &str) -> bool {
        let data = self.api("query", query);
        let series = data["result"].as_array().expect("a vector");
        let is_number = |value: &Value| value.as_str().is_some_and(|value| value != "NaN");
        series.iter().any(|series| is_number(&series["value"][1]))
    }
}

/// Every query of the dashboard with the title of its panel, variables filled in.
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

/// What the variables of the dashboard are filled from.
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

/// All that is named is shown by the proxy, or comes from Prometheus.
fn are_shown(query: &str, page: &Page) {
    let Names { metrics, labels } = names(query);
    assert!(!metrics.is_empty(), "{query}");
    let mut shown: BTreeSet<&str> = ITS_LABELS.into();
    for metric in &metrics {
        match page.labels.get(metric) {
            Some(sets) => shown.extend(sets.iter().flatten().map(String::as_str)),
            None => assert!(
                ITS_METRICS.contains(&&metric[..]),
                "{metric} is shown by nobody: {query}"
            ),
        }
    }
    for label in &labels {
        assert!(shown.contains(&label[..]), "no label {label}: {query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_and_rules_ask_for_what_is_there() {
    let lit = Lit::start();
    let prometheus = Prometheus::start(&lit.pages);
    let client = lit.client().await;
    let ends = Arc::new(AtomicBool::new(false));
    let stop = ends.clone();
    let load = tokio::spawn(async move {
        let mut open = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            open.extend(calls(&client).await);
            for _ in 0..3 {
                let read = Msg::new().bytes(1, "k").int(7, 1);
                client.unary(RANGE, read, &[]).await;
            }
            // A few watches share one; more are no use.
            open.truncate(6);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // Rates are there with the second scrape.
    let panels = panels();
    let until = Instant::now() + LIMIT;
    loop {
        let dark = panels.iter().filter(|(_, query)| !prometheus.has(query));
        let dark: Vec<_> = dark.collect();
        if dark.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "no data: {dark:#?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let page = Page::of(&lit.pages);
    for (_, query) in &panels {
        are_shown(query, &page);
    }
    for series in variables() {
        are_shown(&series, &page);
        assert!(prometheus.has(&series), "{series}");
    }
    let rules = prometheus.api("rules", "");
    let rules = rules["groups"][0]["rules"].as_array().expect("our group");
    assert_eq!(rules.len(), 14);
    for rule in rules {
        are_shown(rule["query"].as_str().expect("its query"), &page);
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
    ends.store(true, Ordering::Relaxed);
    load.await.expect("calls that are answered");
}
