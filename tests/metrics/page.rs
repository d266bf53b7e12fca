//! A parser of metrics pages, tests of the values, and a test of the reference page in `docs/`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::support::grpc::Client;
use crate::support::http;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::{FullProxy, LIMIT, PUT, WATCH, calls, cluster};

/// Content of a metrics page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Types by family.
    pub(crate) types: BTreeMap<String, String>,
    /// Values by series, with the labels sorted by name.
    pub(crate) series: BTreeMap<String, f64>,
    /// Label names by metric name: a family, or a part of a histogram.
    pub(crate) labels: BTreeMap<String, BTreeSet<Vec<String>>>,
}

impl Page {
    /// Fetches `/proxy/metrics` from an address.
    pub(crate) fn of(address: &str) -> Page {
        Page::parse(&text(address))
    }

    /// Fetches the page until it satisfies a condition, up to a time limit.
    #[track_caller]
    pub(crate) fn when(address: &str, is_met: impl Fn(&Page) -> bool) -> Page {
        let until = Instant::now() + LIMIT;
        loop {
            let page = Page::of(address);
            if is_met(&page) {
                return page;
            }
            assert!(
                Instant::now() < until,
                "condition not met after {LIMIT:?}: {page:#?}"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn parse(text: &str) -> Page {
        let mut page = Page::default();
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').expect("a name and a type");
                let before = page.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is duplicated");
            } else if !line.starts_with('#') {
                page.parse_sample(line);
            }
        }
        page
    }

    fn parse_sample(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        // No label value of the proxies contains a quote or a comma.
        let labels = labels.trim_end_matches('}').split(',');
        let mut labels: Vec<&str> = labels.filter(|label| !label.is_empty()).collect();
        labels.sort_unstable();
        let names = labels.iter().map(|label| {
            let (name, _) = label.split_once('=').expect("a name and a value");
            name.to_owned()
        });
        self.labels
            .entry(name.to_owned())
            .or_default()
            .insert(names.collect());
        let series = format!("{name}{{{}}}", labels.join(","));
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let before = self.series.insert(series, value);
        assert_eq!(before, None, "{line} is duplicated");
    }

    /// Returns the series with a name prefix, and their values.
    pub(crate) fn beginning(&self, start: &str) -> BTreeMap<&str, f64> {
        let all = self.series.iter();
        let named = all.filter(|(series, _)| series.starts_with(start));
        named.map(|(series, value)| (&series[..], *value)).collect()
    }

    /// Returns the sum over the series of a metric.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.beginning(&format!("{name}{{")).values().sum()
    }
}

/// Fetches the text of the page.
pub(crate) fn text(address: &str) -> String {
    let page = http::get(address, "/proxy/metrics").expect("the proxy's page");
    assert_eq!(page.status, 200);
    page.body
}

/// `UPDATE_DOCS=1 cargo test --test metrics` updates the page.
#[test]
fn metrics_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/metrics.md");
    let page = std::fs::read_to_string(path).expect("docs/reference/metrics.md");
    let (begins, ends) = ("<!-- written by the program -->\n", "<!-- until here -->\n");
    let (before, rest) = page.split_once(begins).expect("where the tables begin");
    let (_, after) = rest.split_once(ends).expect("where the tables end");
    let reference = etcd_edge::app::metrics_reference();
    let wanted = format!("{before}{begins}{reference}\n{ends}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &wanted).expect("docs/reference/metrics.md");
    } else {
        assert!(page == wanted, "{path} is out of date");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metric_values_are_consistent() {
    let full = FullProxy::start();
    let (open, _) = calls(&full.client().await).await;
    // The proxy finishes a call a moment after its client. The remaining streams to etcd are the
    // shared watch, the shared heartbeats and the watch of the registration.
    let page = Page::when(&full.pages, |page| {
        page.sum("etcd_edge_open_calls") == 2.0 && page.sum("etcd_edge_endpoint_streams") == 3.0
    });
    let sum = |name: &str| page.sum(name);
    let unary = page.beginning("grpc_server_handled_total{").into_iter();
    let unary = unary.filter(|(series, _)| series.contains("grpc_type=\"unary\""));
    let unary: f64 = unary.map(|(_, calls)| calls).sum();
    assert_eq!(unary, 12.0);
    assert_eq!(sum("etcd_edge_call_duration_seconds_count"), unary);
    let seconds = sum("etcd_edge_call_duration_seconds_sum");
    assert!(0.0 < seconds && seconds < 60.0, "{seconds}");
    let infinite = page.beginning("etcd_edge_call_duration_seconds_bucket{");
    let infinite = infinite
        .into_iter()
        .filter(|(series, _)| series.contains("+Inf"));
    assert_eq!(infinite.map(|(_, calls)| calls).sum::<f64>(), unary);

    let named = |name: &str, state: &str| {
        let series = page.beginning(&format!("etcd_edge_endpoint_{name}{{"));
        let mut series = series
            .into_iter()
            .filter(|(series, _)| series.contains(state));
        let value = series.next().unwrap_or_else(|| panic!("{name} {state}")).1;
        assert_eq!(series.next(), None, "one endpoint");
        value
    };
    assert_eq!(named("state", "active"), 1.0);
    assert_eq!(sum("etcd_edge_endpoint_state"), 1.0);
    assert_eq!(named("picked_total", ""), 1.0);
    assert!(named("connections", "") >= 1.0);
    // The snapshot was forwarded from etcd to the client. Little data was sent in the other
    // direction.
    for (side, least) in [
        ("etcd_edge_sent_bytes_total", 20_000.0),
        ("etcd_edge_endpoint_received_bytes_total", 20_000.0),
        ("etcd_edge_received_bytes_total", 100.0),
        ("etcd_edge_endpoint_sent_bytes_total", 100.0),
    ] {
        let bytes = sum(side);
        assert!(least < bytes && bytes < 1e6, "{side} {bytes}");
    }
    let tls =
        |name: &str, side: &str| page.series[&format!("etcd_edge_tls_{name}{{side=\"{side}\"}}")];
    assert_eq!(tls("handshakes_total", "clients"), 1.0);
    assert!(tls("handshakes_total", "etcd") >= 1.0);
    assert_eq!(sum("etcd_edge_tls_handshake_failures_total"), 0.0);
    assert_eq!(sum("etcd_edge_fleet_registered"), 1.0);
    assert_eq!(sum("etcd_edge_build_info"), 1.0);
    drop(open);
}

/// Messages that are translated in a relayed stream are counted, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_relayed_stream_in_a_namespace_are_counted() {
    let proxy = Proxy::start(cluster(), &["--namespace=counted/"]);
    let client = Client::connect(proxy.address()).await;
    let key = || Msg::new().bytes(1, "k");
    let mut watch = client.call(WATCH, &[("etcd-edge-bypass", "1")]).await;
    watch.send(Msg::new().msg(1, key())).await;
    watch.next().await.expect("created");
    for _ in 0..2 {
        client.unary(PUT, key().bytes(2, "v"), &[]).await;
        watch.next().await.expect("the event");
    }
    let labels =
        r#"{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}"#;
    let page = Page::of(proxy.address());
    let messages =
        |direction: &str| page.series[&format!("grpc_server_msg_{direction}_total{labels}")];
    assert_eq!((messages("received"), messages("sent")), (1.0, 3.0));
}
