//! Tests of watch-backed cache entries (R2) and of the cache audit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{metric, wait_metric};
use crate::support::release::{NEWEST, versions};
use crate::support::{grpc, http};
use crate::{etcd_reads, hits, put, read, scene};

const WATCH_BACKED: &str = "etcd_edge_cache_watch_backed_entries";

/// A client that reads one key in a loop, on its own connection.
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
        self.task.await.expect("every read succeeds");
    }
}

/// Waits until etcd has `count` watchers.
fn wait_watchers(cluster: &Cluster, count: f64) {
    let until = Instant::now() + grpc::LIMIT;
    while cluster.metric(0, "etcd_debugging_mvcc_watcher_total") != Some(count) {
        assert!(Instant::now() < until, "etcd has not {count} watchers");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_write_elsewhere() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = Proxy::start(&cluster, &[] as &[&str]);
        let address = proxy.address();
        let direct = Client::connect(&cluster.endpoint(0)).await;
        put(&direct, "hot/k", "first").await;
        let reader = Reader::start(address, "hot/", "hot0").await;
        wait_metric(address, WATCH_BACKED, grpc::LIMIT, |entries| entries == 1.0);
        wait_watchers(&cluster, 1.0);

        // A watch-backed entry needs no refresh, even beyond the age limit.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let refreshes = "etcd_edge_cache_refreshes_total";
        let (hits_before, before) = (hits(&proxy), metric(address, refreshes));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(hits(&proxy) > hits_before + 100.0, "{version}");
        assert_eq!(metric(address, refreshes), before, "{version}");

        // A write elsewhere arrives as an event, which invalidates the cached response. If an event
        // is late, the response may be rejected because of its age instead.
        let written = "etcd_edge_cache_rejected_total{reason=\"written\"}";
        let before = metric(address, written);
        let client = Client::connect(address).await;
        for n in 0..20 {
            put(&direct, "hot/k", &n.to_string()).await;
            while read(&client, "hot/", "hot0").await != [n.to_string()] {}
        }
        assert!(metric(address, written) >= before + 10.0, "{version}");

        // The key has no readers any more.
        reader.finish().await;
        wait_metric(address, WATCH_BACKED, grpc::LIMIT, |entries| entries == 0.0);
        wait_watchers(&cluster, 0.0);
    }
}

/// A watch without proofs from etcd does not back an entry: the age limit applies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_expires_while_its_watch_is_silent() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let reader = Reader::start(proxy.address(), "k", "").await;
    wait_metric(proxy.address(), WATCH_BACKED, grpc::LIMIT, |entries| {
        entries == 1.0
    });
    cluster.stop(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let hits_before = hits(&proxy);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(hits(&proxy), hits_before, "a hit of unknown age");
    cluster.resume(0);
    wait_metric(
        proxy.address(),
        "etcd_edge_cache_hits_total",
        grpc::LIMIT,
        |hits| hits > hits_before,
    );
    reader.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audits_find_no_mismatch() {
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
    assert!(count("etcd_edge_cache_audits_total") > 100.0);
    assert_eq!(count("etcd_edge_cache_audit_mismatches_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_page_and_metrics_report_the_cache() {
    let (cluster, proxy) = scene(&["--cache-max-age=1h"]);
    let client = Client::connect(proxy.address()).await;
    let before = etcd_reads(&cluster);
    for _ in 0..5 {
        read(&client, "k", "").await;
    }
    assert_eq!(etcd_reads(&cluster), before + 1.0);
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
