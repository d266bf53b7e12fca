//! A page of metrics taken apart; and the page of `docs/` that says what each of ours means.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::support::grpc::Client;
use crate::support::http;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::{LIMIT, Lit, PUT, WATCH, calls, cluster};

/// What a page says.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Types by family.
    pub(crate) types: BTreeMap<String, String>,
    /// Values by series, whose labels are in the order of their names.
    pub(crate) series: BTreeMap<String, f64>,
    /// Names of labels by what stands before them: a family, or a part of a histogram.
    pub(crate) labels: BTreeMap<String, BTreeSet<Vec<String>>>,
}

impl Page {
    /// `/proxy/metrics` of who listens here.
    pub(crate) fn of(address: &str) -> Page {
        Page::read(&text(address))
    }

    /// The same once it says something, which it must soon.
    #[track_caller]
    pub(crate) fn when(address: &str, says: impl Fn(&Page) -> bool) -> Page {
        let until = Instant::now() + LIMIT;
        loop {
            let page = Page::of(address);
            if says(&page) {
                return page;
            }
            assert!(Instant::now() < until, "not so after {LIMIT:?}: {page:#?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn read(text: &str) -> Page {
        let mut page = Page::default();
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').expect("a name and a type");
                let before = page.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is there twice");
            } else if !line.starts_with('#') {
                page.take(line);
            }
        }
        page
    }

    fn take(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        // No value of ours or of Go's proxy has a quote or a comma in it.
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
        assert_eq!(before, None, "{line} is there twice");
    }

    /// Those whose names begin so, with their values.
    pub(crate) fn beginning(&self, start: &str) -> BTreeMap<&str, f64> {
        let all = self.series.iter();
        let named = all.filter(|(series, _)| series.starts_with(start));
        named.map(|(series, value)| (&series[..], *value)).collect()
    }

    /// The sum of a name's series.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.beginning(&format!("{name}{{")).values().sum()
    }
}

/// The page as it is.
pub(crate) fn text(address: &str) -> String {
    let page = http::get(address, "/proxy/metrics").expect("the proxy's page");
    assert_eq!(page.status, 200);
    page.body
}

/// `UPDATE_DOCS=1 cargo test --test metrics` writes the page anew.
#[test]
fn the_page_of_metrics_says_what_the_program_shows() {
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
async fn what_is_counted_adds_up() {
    let lit = Lit::start();
    let open = calls(&lit.client().await).await;
    // Calls end for the proxy a moment after they do for their clients. What is left towards etcd are the
    // shared watch, the shared heartbeats and the fleet's watch.
    let page = Page::when(&lit.pages, |page| {
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
    // A snapshot has passed through on both sides, and more than it towards none.
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

/// Messages that are translated on their way are counted too.
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
    let messages = |way: &str| page.series[&format!("grpc_server_msg_{way}_total{labels}")];
    assert_eq!((messages("received"), messages("sent")), (1.0, 3.0));
}
