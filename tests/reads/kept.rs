//! What is kept, for whom, and for how long (R2, R5, R6).

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::pages;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::{NEWEST, versions};
use crate::{LONG, RANGE, ask, hits, put, range, read, revision, scene, serializable, values};

/// Every way of asking is a question of its own, and each answer is etcd's to the letter but for the
/// member's own numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_answer_is_etcds_whatever_was_asked() {
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
        let questions = [
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
        for question in questions {
            let question = serializable(question);
            let told = ask(&direct, question.clone()).await;
            let before = hits(&proxy);
            for _ in 0..2 {
                let given = ask(&client, question.clone()).await;
                assert_eq!(given.only(), told.only(), "{version} {question:?}");
            }
            assert_eq!(hits(&proxy), before + 1.0, "{version} {question:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_revision_is_kept_until_it_is_compacted() {
    let (_cluster, proxy) = scene(&[LONG]);
    let writer = Client::connect(proxy.address()).await;
    let old = put(&writer, "k", "old").await;
    put(&writer, "k", "new").await;
    let client = Client::connect(proxy.address()).await;
    let question = || serializable(range("k", "").int(4, old));
    for _ in 0..2 {
        assert_eq!(values(&ask(&client, question()).await), ["old"]);
        put(&writer, "k", "newer").await;
    }
    assert_eq!(hits(&proxy), 1.0);
    // Its compaction comes through this proxy: nobody is told of what is gone.
    let compact = Msg::new().int(1, old + 1);
    let reply = client.unary("/etcdserverpb.KV/Compact", compact, &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    let reply = ask(&client, question()).await;
    assert_eq!(reply.code(), Some(11), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_not_kept() {
    let (_cluster, proxy) = scene(&[LONG]);
    let client = Client::connect(proxy.address()).await;
    let now = put(&client, "k", "v").await;
    let next = || serializable(range("k", "").int(4, now + 1));
    for _ in 0..3 {
        assert_eq!(ask(&client, next()).await.code(), Some(11));
    }
    put(&client, "k", "w").await;
    assert_eq!(values(&ask(&client, next()).await), ["w"]);
}

/// What is written elsewhere is seen when the answer is too old, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_given_for_its_age() {
    let (cluster, proxy) = scene(&["--cache-max-age=3s"]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    put(&direct, "k", "old").await;
    let asked = Instant::now();
    assert_eq!(read(&client, "k", "").await, ["old"]);
    put(&direct, "k", "new").await;
    // On a connection of its own: this one has been shown nothing.
    let other = Client::connect(proxy.address()).await;
    let given = read(&other, "k", "").await;
    if asked.elapsed() < Duration::from_secs(2) {
        assert_eq!(given, ["old"]);
        assert_eq!(hits(&proxy), 1.0);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(read(&other, "k", "").await, ["new"]);
    let stale = "etcd_edge_cache_invalidated_total{cause=\"age\"}";
    assert!(pages::metric(proxy.address(), stale) >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_does_not_go_back() {
    let (cluster, proxy) = scene(&[LONG]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    put(&direct, "k", "old").await;
    assert_eq!(read(&client, "k", "").await, ["old"]);
    // Written elsewhere: this proxy is not told, but the client sees how far the store is.
    let written = put(&direct, "k", "new").await;
    assert!(revision(&ask(&client, range("other", "")).await) >= written);
    assert_eq!(read(&client, "k", "").await, ["new"]);
    let stale = "etcd_edge_cache_invalidated_total{cause=\"shown\"}";
    assert_eq!(pages::metric(proxy.address(), stale), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_for_whom_it_is_not_wanted() {
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

/// In bytes, with what finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_bounded() {
    const BYTES: u32 = 1 << 20;
    let cluster = Cluster::start(NEWEST, 1);
    let flag = format!("--cache-bytes={BYTES}");
    let proxy = Proxy::start(&cluster, &[LONG, &flag]);
    let client = Client::connect(proxy.address()).await;
    put(&client, "k", &"v".repeat(2_000)).await;
    let size = |name| pages::metric(proxy.address(), name);
    for n in 0..3_000 {
        // Each limit is a question of its own.
        let reply = ask(&client, serializable(range("k", "l").int(3, n + 1))).await;
        assert_eq!(pb::int(reply.only(), &[4]), 1);
    }
    let bytes = size("etcd_edge_cache_bytes");
    let entries = size("etcd_edge_cache_entries");
    assert!(bytes <= f64::from(BYTES), "{bytes}");
    assert!(bytes > f64::from(BYTES) / 2.0, "{bytes}");
    assert!(entries > 200.0 && entries < 520.0, "{entries}");
    // What Go's dashboards look at.
    assert_eq!(size("etcd_grpc_proxy_cache_keys_total"), entries);
    assert_eq!(size("etcd_grpc_proxy_cache_misses_total"), 3_000.0);
}
