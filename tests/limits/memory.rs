//! Clients that request much data and read none: the memory they can occupy is bounded.

use std::time::Duration;

use etcd_edge::wire::gzip;

use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, frame};
use crate::support::load::H2Connection;
use crate::support::memory::{peak_kib, reset_peak};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::raw_h2_client::RawClient;
use crate::support::release::NEWEST;
use crate::{PUT, RANGE};

/// SETTINGS_INITIAL_WINDOW_SIZE.
const WINDOW: u16 = 4;

/// Starts a member with a value of this size under `k`, and an idle proxy.
async fn scene(size: usize) -> (Cluster, Proxy) {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let connection = H2Connection::connect(proxy.address()).await.unwrap();
    let put = Msg::new().bytes(1, "k").bytes(2, vec![b'v'; size]);
    assert!(connection.unary(PUT, put.as_ref(), None).await.ok());
    tokio::time::sleep(Duration::from_millis(200)).await;
    reset_peak(&proxy.process);
    (cluster, proxy)
}

/// Makes this many calls from one client that reads no response. Returns the peak memory above the
/// idle state, in KiB. Another client is served at the same time.
async fn greed(proxy: &Proxy, window: u32, reads: bool, calls: usize) -> u64 {
    let idle = proxy.process.rss_kib();
    let settings = [(WINDOW, window)];
    let mut greedy = RawClient::connect_unread(proxy.address(), &settings).await;
    if window > 0 {
        // Extends the connection's window too.
        let more = (1u32 << 31) - 1 - 65_535;
        let update = crate::support::scripted_etcd::frame(8, 0, 0, &more.to_be_bytes());
        greedy.send(&update).await;
    }
    if reads {
        greedy.start_reading();
    }
    let key = Msg::new().bytes(1, "k");
    let make_calls = async {
        for _ in 0..calls {
            let (_, frames) = greedy.call(RANGE, key.as_ref());
            if !greedy.send(&frames).await {
                break;
            }
        }
        // Time for all responses.
        tokio::time::sleep(Duration::from_secs(3)).await;
    };
    // The client may not be able to send all its requests.
    let _ = tokio::time::timeout(Duration::from_secs(8), make_calls).await;
    let neighbour = H2Connection::connect(proxy.address()).await.unwrap();
    // Only the deadline limits the time, because a busy machine is slow.
    let result = neighbour.unary(RANGE, key.as_ref(), Some("10S")).await;
    assert!(result.ok(), "{result:?}");
    let above = peak_kib(&proxy.process).saturating_sub(idle);
    println!(
        "{calls} calls, window {window}, reads the socket: {reads}: {above} KiB above {idle} KiB; {:?}",
        greedy.received().resets.len()
    );
    above
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_responses_without_a_window_use_bounded_memory() {
    let (_cluster, proxy) = scene(100_000).await;
    // 300 MB are requested. One connection may queue 64 MiB, and some data is always in flight.
    let above = greed(&proxy, 0, true, 3_000).await;
    assert!(above < 120 * 1024, "{above} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_responses_without_a_window_use_bounded_memory() {
    let (_cluster, proxy) = scene(3_000).await;
    // 4 KiB of each response leave flow control, and each stream costs as much again.
    let above = greed(&proxy, 0, true, 8_000).await;
    assert!(above < 8_000 * 12, "{above} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_socket_uses_bounded_memory() {
    let (_cluster, proxy) = scene(1_000_000).await;
    // 600 MB are requested. Each stream may queue 64 KiB above the socket, and fill its window of
    // 256 KiB from etcd before the proxy checks it. Then all streams together have at most 64 MiB;
    // the others are reset.
    let above = greed(&proxy, (1 << 31) - 1, false, 600).await;
    assert!(above < 600 * (64 + 256) + 30 * 1024, "{above} KiB");
}

/// Each message decompresses to 100 MB. Decompression stops at the limit, and the memory is freed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bombs_use_bounded_memory() {
    let cluster = Cluster::start(NEWEST, 1);
    for flags in [&["--advertise-client-url="][..], &["--namespace=p/"]] {
        let proxy = Proxy::start(&cluster, flags);
        let client = Client::connect(proxy.address()).await;
        let bomb = Msg::new().bytes(1000, vec![0; 100 << 20]);
        let bomb = frame(1, &gzip::compress([bomb.as_ref()], Vec::new()));
        let idle = proxy.process.rss_kib();
        reset_peak(&proxy.process);
        for path in [
            "/etcdserverpb.Watch/Watch",
            "/etcdserverpb.Lease/LeaseKeepAlive",
            "/grpc.health.v1.Health/Watch",
            PUT,
            RANGE,
        ] {
            let mut calls = Vec::new();
            for _ in 0..20 {
                let mut call = client.call(path, &[("grpc-encoding", "gzip")]).await;
                call.send_raw(bomb.clone()).await;
                call.half_close();
                calls.push(call);
            }
            for call in calls {
                let reply = call.finish().await;
                // The code of etcd too, which receives the larger ones as they are.
                assert_eq!(reply.code(), Some(8), "{path} {reply:?}");
                let text = "larger than max";
                assert!(reply.message().contains(text), "{path} {reply:?}");
            }
        }
        let above = peak_kib(&proxy.process).saturating_sub(idle);
        println!("{flags:?}: {above} KiB above {idle} KiB");
        assert!(above < 40 * 1024, "{above} KiB");
        let put = Msg::new().bytes(1, "k").bytes(2, "v");
        assert_eq!(client.unary(PUT, put, &[]).await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_disconnected_client_are_freed() {
    let (_cluster, proxy) = scene(100_000).await;
    for _ in 0..3 {
        greed(&proxy, 0, true, 1_000).await;
    }
    // The clients have disconnected.
    let open = "etcd_edge_open_calls";
    let limit = Duration::from_secs(10);
    crate::support::proxy_output::wait_metric(proxy.address(), open, limit, |open| open == 0.0);
}
