//! Test of metrics compatibility with Go's proxy: after the same calls, the proxy has the same
//! families with the same types and labels.

use std::collections::BTreeMap;

use crate::page::Page;
use crate::support::grpc::Client;
use crate::support::proxy::Proxy;
use crate::{calls, cluster};

/// Reports whether a family belongs to Go's proxy, and not to its process.
fn is_of_proxy(name: &str) -> bool {
    name.starts_with("etcd_grpc_proxy_") || name.starts_with("grpc_server_")
}

/// Returns the number of finished calls.
fn handled(page: &Page) -> BTreeMap<&str, f64> {
    page.beginning("grpc_server_handled_total{")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_family_of_gos_proxy_exists_with_its_type_and_labels() {
    let ours = Proxy::start(cluster(), &["--advertise-client-url="]);
    let go = Proxy::start_go(cluster(), &["--advertise-client-url="]);
    let mut snapshot_messages = Vec::new();
    for proxy in [&ours, &go] {
        let client = Client::connect(proxy.address()).await;
        let (mut open, of_snapshot) = calls(&client).await;
        snapshot_messages.push(of_snapshot);
        // One after the other, so they end in this order.
        open.iter_mut().for_each(|call| call.cancel());
    }
    let finished = |page: &Page| handled(page).values().sum::<f64>() == 15.0;
    let go = Page::when(go.address(), finished);
    let ours = Page::when(ours.address(), finished);
    let mut families = 0;
    for (name, kind) in go.types.iter().filter(|(name, _)| is_of_proxy(name)) {
        families += 1;
        assert_eq!(ours.types.get(name), Some(kind), "{name}");
        assert_eq!(ours.labels.get(name), go.labels.get(name), "{name}");
    }
    assert_eq!(families, 9);
    for counter in ["grpc_server_started_total", "grpc_server_handled_total"] {
        assert_eq!(ours.beginning(counter), go.beginning(counter), "{counter}");
    }
    // The store may have grown between the two snapshots.
    let sent = "grpc_server_msg_sent_total";
    for (page, of_snapshot) in [&ours, &go].into_iter().zip(snapshot_messages) {
        let mut expected = ours.beginning(sent);
        let snapshot = expected
            .iter_mut()
            .find(|(name, _)| name.contains("Snapshot"));
        *snapshot.expect("a snapshot").1 = of_snapshot as f64;
        assert_eq!(page.beginning(sent), expected);
    }
    // From 3.7 on, Go's proxy counts the end of a reset stream as one more message.
    let received = "grpc_server_msg_received_total";
    for (series, ours) in ours.beginning(received) {
        let is_reset = series.contains("LeaseKeepAlive") || series.contains("Watch");
        let more = if is_reset { 1.0 } else { 0.0 };
        assert_eq!(go.series[series], ours + more, "{series}");
    }
}
