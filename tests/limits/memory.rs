//! Clients that ask much and read nothing: what they can pin is bounded.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::load::H2Connection;
use crate::support::memory::{peak_kib, reset_peak};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::raw_h2_client::RawClient;
use crate::support::release::NEWEST;
use crate::{PUT, RANGE};

/// SETTINGS_INITIAL_WINDOW_SIZE.
const WINDOW: u16 = 4;

/// A member with a value of this size under `k`, and a proxy at rest.
async fn scene(size: usize) -> (Cluster, Proxy) {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let lane = H2Connection::connect(proxy.address()).await.unwrap();
    let put = Msg::new().bytes(1, "k").bytes(2, vec![b'v'; size]);
    assert!(lane.unary(PUT, put.as_ref(), None).await.ok());
    tokio::time::sleep(Duration::from_millis(200)).await;
    reset_peak(&proxy.process);
    (cluster, proxy)
}

/// One client asks so often and reads nothing. The peak above rest, in KiB, while a neighbour is
/// served as ever.
async fn greed(proxy: &Proxy, window: u32, reads: bool, calls: usize) -> u64 {
    let rest = proxy.process.rss_kib();
    let settings = [(WINDOW, window)];
    let mut greedy = RawClient::connect_unread(proxy.address(), &settings).await;
    if window > 0 {
        // The connection's window too.
        let more = (1u32 << 31) - 1 - 65_535;
        let update = crate::support::scripted_etcd::frame(8, 0, 0, &more.to_be_bytes());
        greedy.send(&update).await;
    }
    if reads {
        greedy.start_reading();
    }
    let key = Msg::new().bytes(1, "k");
    let ask = async {
        for _ in 0..calls {
            let (_, frames) = greedy.call(RANGE, key.as_ref());
            if !greedy.send(&frames).await {
                break;
            }
        }
        // Everything that can come has come.
        tokio::time::sleep(Duration::from_secs(3)).await;
    };
    // It may not even get rid of all its requests.
    let _ = tokio::time::timeout(Duration::from_secs(8), ask).await;
    let neighbour = H2Connection::connect(proxy.address()).await.unwrap();
    // Its deadline is the one bound on the time: a busy machine is slow to everybody.
    let told = neighbour.unary(RANGE, key.as_ref(), Some("10S")).await;
    assert!(told.ok(), "{told:?}");
    let above = peak_kib(&proxy.process).saturating_sub(rest);
    println!(
        "{calls} calls, window {window}, reads the socket: {reads}: {above} KiB above {rest} KiB; {:?}",
        greedy.received().resets.len()
    );
    above
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_a_window() {
    let (_cluster, proxy) = scene(100_000).await;
    // 300 MB asked for. 64 MiB may wait for one connection, and something is always on its way.
    let above = greed(&proxy, 0, true, 3_000).await;
    assert!(above < 120 * 1024, "{above} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_answers_without_a_window() {
    let (_cluster, proxy) = scene(3_000).await;
    // 4 KiB each leave the flow control's hands, and each stream costs as much again.
    let above = greed(&proxy, 0, true, 8_000).await;
    assert!(above < 8_000 * 12, "{above} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_is_not_read() {
    let (_cluster, proxy) = scene(1_000_000).await;
    // 600 MB asked for. Each stream may have 64 KiB queued beyond the socket and fill its window of
    // 256 KiB from etcd before it is looked at; then all together keep 64 MiB, the others are reset.
    let above = greed(&proxy, (1 << 31) - 1, false, 600).await;
    assert!(above < 600 * (64 + 256) + 30 * 1024, "{above} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pinned_is_given_back() {
    let (_cluster, proxy) = scene(100_000).await;
    for _ in 0..3 {
        greed(&proxy, 0, true, 1_000).await;
    }
    // The clients are gone.
    let open = "etcd_edge_open_calls";
    let limit = Duration::from_secs(10);
    crate::support::proxy_output::wait_metric(proxy.address(), open, limit, |open| open == 0.0);
}
