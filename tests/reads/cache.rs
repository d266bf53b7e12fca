//! Tests of the contents of the read cache: which responses it stores, for which clients, and for
//! how long (R2, R5, R6).

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::proxy_output;
use crate::support::release::{NEWEST, versions};
use crate::{
    LONG, RANGE, hits, put, range, read, revision, scene, send_range, serializable, values,
};

/// Each form of request has its own entry. A cached response equals etcd's response byte for byte,
/// except for the numbers of the member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_response_equals_etcds_for_every_request() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = Proxy::start(&cluster, &[LONG]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let client = Client::connect(proxy.address()).await;
        let mut revisions = Vec::new();
        for n in 0..12 {
            revisions.push(put(&client, &format!("k{}", n % 6), &format!("{n}")).await);
        }
        let middle = revisions[6];
        let all = || range("k", "l");
        let requests = [
            range("k0", ""),
            range("nothing", ""),
            all(),
            range("k3", "\0"),
            range("\0", "\0"),
            all().int(3, 2),
            all().int(3, 2).int(4, middle),
            all().int(5, 2).int(6, 4),
            all().int(5, 1).int(6, 0),
            all().int(8, 1),
            all().int(9, 1),
            all().int(10, middle),
            all().int(11, middle),
            all().int(12, middle).int(13, middle),
        ];
        for request in requests {
            let request = serializable(request);
            let expected = send_range(&direct, request.clone()).await;
            let before = hits(&proxy);
            for _ in 0..2 {
                let reply = send_range(&client, request.clone()).await;
                assert_eq!(reply.only(), expected.only(), "{version} {request:?}");
            }
            assert_eq!(hits(&proxy), before + 1.0, "{version} {request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_at_an_old_revision_is_cached_until_compaction() {
    let (_cluster, proxy) = scene(&[LONG]);
    let writer = Client::connect(proxy.address()).await;
    let old = put(&writer, "k", "old").await;
    put(&writer, "k", "new").await;
    let client = Client::connect(proxy.address()).await;
    let request = || serializable(range("k", "").int(4, old));
    for _ in 0..2 {
        assert_eq!(values(&send_range(&client, request()).await), ["old"]);
        put(&writer, "k", "newer").await;
    }
    assert_eq!(hits(&proxy), 1.0);
    // The compaction passes through this proxy, which then drops the compacted revision.
    let compact = Msg::new().int(1, old + 1);
    let reply = client.unary("/etcdserverpb.KV/Compact", compact, &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    let reply = send_range(&client, request()).await;
    assert_eq!(reply.code(), Some(11), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_not_cached() {
    let (_cluster, proxy) = scene(&[LONG]);
    let client = Client::connect(proxy.address()).await;
    let now = put(&client, "k", "v").await;
    let next = || serializable(range("k", "").int(4, now + 1));
    for _ in 0..3 {
        assert_eq!(send_range(&client, next()).await.code(), Some(11));
    }
    put(&client, "k", "w").await;
    assert_eq!(values(&send_range(&client, next()).await), ["w"]);
}

/// A write elsewhere becomes visible when the cached response expires, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_returned_up_to_its_age_limit() {
    let (cluster, proxy) = scene(&["--cache-max-age=3s"]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    put(&direct, "k", "old").await;
    let sent = Instant::now();
    assert_eq!(read(&client, "k", "").await, ["old"]);
    put(&direct, "k", "new").await;
    // A new connection has no floor.
    let other = Client::connect(proxy.address()).await;
    let seen = read(&other, "k", "").await;
    if sent.elapsed() < Duration::from_secs(2) {
        assert_eq!(seen, ["old"]);
        assert_eq!(hits(&proxy), 1.0);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(read(&other, "k", "").await, ["new"]);
    let stale = "etcd_edge_cache_rejected_total{reason=\"expired\"}";
    assert!(proxy_output::metric(proxy.address(), stale) >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_never_moves_a_connection_back_in_time() {
    let (cluster, proxy) = scene(&[LONG]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    put(&direct, "k", "old").await;
    assert_eq!(read(&client, "k", "").await, ["old"]);
    // The proxy does not see this write, but the client sees the store's revision in a later
    // response.
    let written = put(&direct, "k", "new").await;
    assert!(revision(&send_range(&client, range("other", "")).await) >= written);
    assert_eq!(read(&client, "k", "").await, ["new"]);
    let stale = "etcd_edge_cache_rejected_total{reason=\"connection_floor\"}";
    assert_eq!(proxy_output::metric(proxy.address(), stale), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_can_be_disabled_by_flag_and_by_call() {
    for off in ["--cache-bytes=0", "--cache-max-age=0s"] {
        let (_cluster, proxy) = scene(&[off]);
        let client = Client::connect(proxy.address()).await;
        for _ in 0..3 {
            read(&client, "k", "").await;
        }
        assert_eq!(hits(&proxy), 0.0, "{off}");
    }
    let (cluster, proxy) = scene(&[LONG]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    read(&client, "k", "").await;
    put(&direct, "k", "new").await;
    let bypass = &[("etcd-edge-bypass", "1")];
    let reply = client.unary(RANGE, serializable(range("k", "")), bypass);
    assert_eq!(values(&reply.await), ["new"]);
    assert_eq!(hits(&proxy), 0.0);
}

/// The limit counts bytes, including the index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_size_is_limited() {
    const BYTES: u32 = 1 << 20;
    let cluster = Cluster::start(NEWEST, 1);
    let flag = format!("--cache-bytes={BYTES}");
    let proxy = Proxy::start(&cluster, &[LONG, &flag]);
    let client = Client::connect(proxy.address()).await;
    put(&client, "k", &"v".repeat(2_000)).await;
    let size = |name| proxy_output::metric(proxy.address(), name);
    for n in 0..3_000 {
        // Each limit makes a separate entry.
        let reply = send_range(&client, serializable(range("k", "l").int(3, n + 1))).await;
        assert_eq!(pb::int(reply.only(), &[4]), 1);
    }
    let bytes = size("etcd_edge_cache_bytes");
    let entries = size("etcd_edge_cache_entries");
    assert!(bytes <= f64::from(BYTES), "{bytes}");
    assert!(bytes > f64::from(BYTES) / 2.0, "{bytes}");
    assert!(entries > 200.0 && entries < 520.0, "{entries}");
    // Metrics of etcd grpc-proxy for its dashboards.
    assert_eq!(size("etcd_grpc_proxy_cache_keys_total"), entries);
    assert_eq!(size("etcd_grpc_proxy_cache_misses_total"), 3_000.0);
}
