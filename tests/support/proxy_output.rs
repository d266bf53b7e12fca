//! Metrics and log of a proxy under test: counters, log entries, the current endpoint.

use std::time::{Duration, Instant};

use super::http;
use super::proxy::Proxy;

/// Returns the value of a series of `/proxy/metrics` by its full name, labels included. The name of
/// a family without labels returns the sum of all its series. Returns 0 when there is no such
/// series.
pub fn metric(address: &str, name: &str) -> f64 {
    let page = http::get(address, "/proxy/metrics").expect("the proxy's metrics");
    let lines = page.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let family = series.split('{').next()?;
            (series == name || family == name)
                .then(|| value.parse::<f64>().ok())
                .flatten()
        })
        .sum()
}

/// Waits until the value of a metric passes `good`, and returns it.
pub fn wait_metric(address: &str, name: &str, limit: Duration, good: impl Fn(f64) -> bool) -> f64 {
    let until = Instant::now() + limit;
    loop {
        let value = metric(address, name);
        if good(value) {
            return value;
        }
        assert!(Instant::now() < until, "{name} is {value} after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the log entries with this message, parsed, oldest first.
pub fn log_entries(proxy: &Proxy, message: &str) -> Vec<serde_json::Value> {
    log_entries_where(proxy, |each| each == message)
}

fn log_entries_where(proxy: &Proxy, wanted: impl Fn(&str) -> bool) -> Vec<serde_json::Value> {
    let log = proxy.process.log();
    log.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|entry| entry["msg"].as_str().is_some_and(&wanted))
        .collect()
}

/// Returns the endpoint that the proxy picked last, according to its log.
pub fn current_endpoint(proxy: &Proxy) -> Option<String> {
    // With the policy that follows the leader, the message continues with the reason.
    let picked = log_entries_where(proxy, |each| each.starts_with("endpoint picked")).pop()?;
    picked["endpoint"].as_str().map(str::to_owned)
}
