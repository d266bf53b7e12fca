//! Test of the size of a scrape with many open streams.

use crate::page::Page;
use crate::support::grpc::{Call, Client};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::{WATCH, cluster};

/// Opens watches, each on its own stream, with a hundred streams per connection.
async fn watches(proxy: &Proxy, streams: usize) -> Vec<Call> {
    let mut open = Vec::with_capacity(streams);
    for _ in 0..streams.div_ceil(100) {
        let client = Client::connect(proxy.address()).await;
        let first = open.len();
        for _ in first..streams.min(first + 100) {
            let mut call = client.call(WATCH, &[]).await;
            call.send(Msg::new().msg(1, Msg::new().bytes(1, "k"))).await;
            open.push(call);
        }
        for call in &mut open[first..] {
            call.next().await.expect("created");
        }
    }
    open
}

/// Values may have more digits, but there are no additional series.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_page_does_not_grow_with_open_streams() {
    let proxy = Proxy::start(cluster(), &["--advertise-client-url="]);
    let few = watches(&proxy, 2).await;
    let before = Page::of(proxy.address());
    let more = watches(&proxy, 500).await;
    let after = Page::of(proxy.address());
    assert_eq!(after.sum("etcd_edge_watch_streams"), 502.0);
    assert_eq!(
        after.series.keys().collect::<Vec<_>>(),
        before.series.keys().collect::<Vec<_>>()
    );
    drop((few, more));
}
