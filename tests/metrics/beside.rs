//! What dashboards know from Go's proxy is here too: after the same calls the same families, with the same
//! types and labels.

use std::collections::BTreeMap;

use crate::page::Page;
use crate::support::grpc::Client;
use crate::support::proxy::Proxy;
use crate::{calls, cluster};

/// Families that come from Go's proxy and not from its process.
fn is_of_proxy(name: &str) -> bool {
    name.starts_with("etcd_grpc_proxy_") || name.starts_with("grpc_server_")
}

/// Calls that ended, so far.
fn handled(page: &Page) -> BTreeMap<&str, f64> {
    page.beginning("grpc_server_handled_total{")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_of_gos_proxy_is_here_with_its_type_and_labels() {
    let ours = Proxy::start(cluster(), &["--advertise-client-url="]);
    let go = Proxy::start_go(cluster(), &["--advertise-client-url="]);
    for proxy in [&ours, &go] {
        let client = Client::connect(proxy.address()).await;
        let mut open = calls(&client).await;
        // One after the other: they end in this order.
        open.iter_mut().for_each(|call| call.cancel());
    }
    let ended = |page: &Page| handled(page).values().sum::<f64>() == 15.0;
    let go = Page::when(go.address(), ended);
    let ours = Page::when(ours.address(), ended);
    let mut families = 0;
    for (name, kind) in go.types.iter().filter(|(name, _)| is_of_proxy(name)) {
        families += 1;
        assert_eq!(ours.types.get(name), Some(kind), "{name}");
        assert_eq!(ours.labels.get(name), go.labels.get(name), "{name}");
    }
    assert_eq!(families, 9);
    for counted in [
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_msg_sent_total",
    ] {
        assert_eq!(ours.beginning(counted), go.beginning(counted), "{counted}");
    }
    // From 3.7 on Go's proxy takes the end of a stream that was reset for one more message.
    let received = "grpc_server_msg_received_total";
    for (series, ours) in ours.beginning(received) {
        let is_reset = series.contains("LeaseKeepAlive") || series.contains("Watch");
        let more = if is_reset { 1.0 } else { 0.0 };
        assert_eq!(go.series[series], ours + more, "{series}");
    }
}
