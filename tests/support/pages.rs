//! What a proxy's own metrics and log say: which endpoint serves, how often something happened.

use std::time::{Duration, Instant};

use super::http;
use super::proxy::Proxy;

/// A series of `/proxy/metrics` by its full name, labels included; the sum of all series of a family
/// when only its name is given; 0 when there is none.
pub fn metric(address: &str, name: &str) -> f64 {
    let page = http::get(address, "/proxy/metrics").expect("the proxy's page");
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

/// Waits until a metric satisfies the test.
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

/// The log lines with this message, parsed, oldest first.
pub fn logged(proxy: &Proxy, message: &str) -> Vec<serde_json::Value> {
    logged_as(proxy, |said| said == message)
}

fn logged_as(proxy: &Proxy, wanted: impl Fn(&str) -> bool) -> Vec<serde_json::Value> {
    let log = proxy.process.log();
    log.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|entry| entry["msg"].as_str().is_some_and(&wanted))
        .collect()
}

/// The endpoint that was picked last, as the log shows it.
pub fn serving(proxy: &Proxy) -> Option<String> {
    // By the policy that follows the leader it goes on with why.
    let picked = logged_as(proxy, |said| said.starts_with("endpoint picked")).pop()?;
    picked["endpoint"].as_str().map(str::to_owned)
}
