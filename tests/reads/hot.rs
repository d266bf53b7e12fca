//! Answers that are asked for often are proved right by a watch (R2), and held against etcd where that
//! is wished.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::pages::{metric, wait_metric};
use crate::support::proxy::Proxy;
use crate::support::release::{NEWEST, versions};
use crate::support::{grpc, http};
use crate::{asked_of_etcd, hits, put, read, scene};

const COVERS: &str = "etcd_edge_cache_covers";

/// Somebody who reads one key again and again, on a connection of his own.
struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Reader {
    async fn start(address: &str, key: &'static str, end: &'static str) -> Reader {
        let client = Client::connect(address).await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                read(&client, key, end).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Reader { stop, task }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every read is answered");
    }
}

/// Waits until etcd has so many watchers.
fn wait_watchers(cluster: &Cluster, count: f64) {
    let until = Instant::now() + grpc::LIMIT;
    while cluster.metric(0, "etcd_debugging_mvcc_watcher_total") != Some(count) {
        assert!(Instant::now() < until, "etcd has not {count} watchers");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_is_written_elsewhere() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = Proxy::start(&cluster, &[] as &[&str]);
        let address = proxy.address();
        let direct = Client::connect(&cluster.endpoint(0)).await;
        put(&direct, "hot/k", "first").await;
        let reader = Reader::start(address, "hot/", "hot0").await;
        wait_metric(address, COVERS, grpc::LIMIT, |covers| covers == 1.0);
        wait_watchers(&cluster, 1.0);

        // While it is proved right nobody asks for it anew, for longer than answers may be old.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let renewed = "etcd_edge_cache_renewed_total";
        let (given, before) = (hits(&proxy), metric(address, renewed));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(hits(&proxy) > given + 100.0, "{version}");
        assert_eq!(metric(address, renewed), before, "{version}");

        // What is written elsewhere is an event, and the event says that the answer is not right any
        // more. Where one is late, the answer may have been too old just then.
        let written = "etcd_edge_cache_invalidated_total{cause=\"written\"}";
        let before = metric(address, written);
        let client = Client::connect(address).await;
        for n in 0..20 {
            put(&direct, "hot/k", &n.to_string()).await;
            while read(&client, "hot/", "hot0").await != [n.to_string()] {}
        }
        assert!(metric(address, written) >= before + 10.0, "{version}");

        // Nobody reads it any more.
        reader.finish().await;
        wait_metric(address, COVERS, grpc::LIMIT, |covers| covers == 0.0);
        wait_watchers(&cluster, 0.0);
    }
}

/// A watch that cannot go on proves nothing: when etcd is silent, the answer's age counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_silent_proves_nothing() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let reader = Reader::start(proxy.address(), "k", "").await;
    wait_metric(proxy.address(), COVERS, grpc::LIMIT, |covers| covers == 1.0);
    cluster.stop(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let given = hits(&proxy);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(hits(&proxy), given, "an answer of unknown age was given");
    cluster.resume(0);
    wait_metric(
        proxy.address(),
        "etcd_edge_cache_hits_total",
        grpc::LIMIT,
        |hits| hits > given,
    );
    reader.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_is_etcds_by_every_audit() {
    let (cluster, proxy) = scene(&["--cache-audit=3"]);
    let mut readers = Vec::new();
    for (key, end) in [("k0", ""), ("k", "l"), ("k1", "\0")] {
        readers.push(Reader::start(proxy.address(), key, end).await);
    }
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        let writer = if n % 2 == 0 { &direct } else { &client };
        put(writer, &format!("k{}", n % 4), &n.to_string()).await;
        n += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for reader in readers {
        reader.finish().await;
    }
    let count = |name| metric(proxy.address(), name);
    assert!(count("etcd_edge_cache_audited_total") > 100.0);
    assert_eq!(count("etcd_edge_cache_differed_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_shown() {
    let (cluster, proxy) = scene(&["--cache-max-age=1h"]);
    let client = Client::connect(proxy.address()).await;
    let before = asked_of_etcd(&cluster);
    for _ in 0..5 {
        read(&client, "k", "").await;
    }
    assert_eq!(asked_of_etcd(&cluster), before + 1.0);
    let page = http::get(proxy.address(), "/proxy/status").expect("the status page");
    let status: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
    let reads = &status["reads"];
    assert_eq!(reads["entries"], 1, "{reads}");
    assert_eq!((&reads["hits"], &reads["misses"]), (&4.into(), &1.into()));
    assert!(reads["bytes"].as_u64() > Some(0), "{reads}");
    let count = |name| metric(proxy.address(), name);
    assert_eq!(count("etcd_edge_cache_age_seconds_count"), 4.0);
    assert_eq!(
        count("etcd_edge_cache_age_seconds_bucket{le=\"+Inf\"}"),
        4.0
    );
    assert_eq!(count("etcd_grpc_proxy_cache_hits_total"), 4.0);
    assert_eq!(count("etcd_grpc_proxy_cache_misses_total"), 1.0);
    assert_eq!(count("etcd_grpc_proxy_cache_keys_total"), 1.0);
}
