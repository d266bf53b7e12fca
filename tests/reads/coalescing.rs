//! Tests of coalescing: equal reads share an upstream read sent after they arrived, and nothing
//! else (R1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, LIMIT};
use crate::support::load::H2Connection;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output;
use crate::support::release::NEWEST;
use crate::{RANGE, etcd_reads, put, range, scene, serializable, values};

/// Serializes the tests with a thousand clients, which would slow each other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Clients that send the same request in a loop, each on its own connection.
struct Readers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Readers {
    async fn start(address: &str, count: usize, message: Msg, pause: Duration) -> Readers {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(H2Connection::connect(address).await.expect("a connection"));
        }
        let clients = connections.into_iter().zip(0..).map(|(connection, n)| {
            let (stop, done): (_, Arc<AtomicU64>) = (stop.clone(), Arc::clone(&done));
            let message = message.clone();
            // The requests are spread over the pause.
            let offset = pause * n / count as u32;
            tokio::spawn(async move {
                sleep(offset).await;
                while !stop.load(Ordering::Relaxed) {
                    let result = connection.unary(RANGE, message.as_ref(), None).await;
                    assert!(result.ok(), "{result:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
            })
        });
        let clients = clients.collect();
        Readers {
            stop,
            done,
            clients,
        }
    }

    /// Number of responses so far.
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("every read succeeds");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_a_thousand_clients_are_coalesced() {
    let _alone = ALONE.lock().await;
    let (cluster, proxy) = scene(&["--workers=1"]);
    let readers = Readers::start(proxy.address(), 1_000, range("hot", ""), Duration::ZERO).await;
    let (upstream, done) = (etcd_reads(&cluster), readers.done());
    sleep(Duration::from_secs(4)).await;
    let (upstream, done) = (etcd_reads(&cluster) - upstream, readers.done() - done);
    readers.finish().await;
    println!("{done} reads, {upstream} at etcd");
    assert!(done > 2_000, "{done}");
    assert!(upstream <= done as f64 / 100.0, "{upstream} of {done}");
    let shared = proxy_output::metric(proxy.address(), "etcd_edge_reads_shared_total");
    assert!(shared > done as f64 * 0.9, "{shared} of {done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_reads_of_a_thousand_clients_cost_two_reads_per_maximum_age() {
    // A proof that takes longer than a third of the maximum age comes too late, as it may on a busy
    // machine if the age is one second.
    const MAX_AGE: Duration = Duration::from_secs(4);
    let _alone = ALONE.lock().await;
    let (cluster, proxy) = scene(&["--workers=2", "--cache-max-age=4s"]);
    let request = serializable(range("hot", ""));
    // Their cost at etcd does not depend on their rate. A debug build serves this rate on a busy
    // machine too.
    let pause = Duration::from_secs(2);
    let readers = Readers::start(proxy.address(), 1_000, request, pause).await;
    let entries = "etcd_edge_cache_watch_backed_entries";
    proxy_output::wait_metric(proxy.address(), entries, LIMIT, |entries| entries == 1.0);
    let late = || {
        let series = r#"etcd_edge_cache_rejected_total{reason="expired"}"#;
        proxy_output::metric(proxy.address(), series)
    };
    let (begun, late_before) = (Instant::now(), late());
    let (upstream, done) = (etcd_reads(&cluster), readers.done());
    sleep(3 * MAX_AGE).await;
    let (upstream, done) = (etcd_reads(&cluster) - upstream, readers.done() - done);
    let ages = begun.elapsed().div_duration_f64(MAX_AGE);
    let late = late() - late_before;
    readers.finish().await;
    println!("{done} reads, {upstream} at etcd in {ages:.1} maximum ages, {late} too late");
    assert!(done > 2_000, "{done}");
    // When the response expires before its proof, each of the two workers reads twice: for the
    // client that notices first, and for all that arrived meanwhile.
    let per_age = if late == 0.0 { 2.0 } else { 2.0 + 4.0 };
    assert!(upstream <= per_age * ages, "{upstream} of {done}, {late}");
}

/// Any number of equal reads may be in flight: a read sent after a write returns that write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coalesced_read_returns_every_earlier_write() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let readers = Readers::start(proxy.address(), 60, range("hot", ""), Duration::ZERO).await;
    let direct = Client::connect(&cluster.endpoint(cluster.leader())).await;
    let client = Client::connect(proxy.address()).await;
    for n in 0..500 {
        put(&direct, "hot", &n.to_string()).await;
        let reply = client.unary(RANGE, range("hot", ""), &[]).await;
        assert_eq!(values(&reply), [n.to_string()]);
    }
    readers.finish().await;
    let shared = proxy_output::metric(proxy.address(), "etcd_edge_reads_shared_total");
    assert!(shared > 500.0, "{shared}");
}

/// A client that cancels, or runs into its deadline, does not affect the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_reader_does_not_cancel_the_shared_read() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--workers=1"]);
    let client = Client::connect(proxy.address()).await;
    put(&client, "hot", "v").await;
    cluster.stop(0);
    // The first read is in flight, the others wait for it.
    let mut calls = Vec::new();
    for n in 0..40 {
        let deadline: &[(&str, &str)] = if n % 4 == 1 {
            &[("grpc-timeout", "200m")]
        } else {
            &[]
        };
        let mut call = client.call(RANGE, deadline).await;
        call.send(range("hot", "")).await;
        call.half_close();
        calls.push((n, call));
    }
    let mut cancelled = 0;
    let mut remaining = Vec::new();
    for (n, mut call) in calls {
        match n % 4 {
            0 => {
                call.cancel();
                cancelled += 1;
            }
            1 => assert_eq!(call.finish().await.code(), Some(4), "call {n}"),
            _ => remaining.push(call),
        }
    }
    assert_eq!((cancelled, remaining.len()), (10, 20));
    cluster.resume(0);
    for call in remaining {
        let reply = tokio::time::timeout(LIMIT, call.finish()).await;
        assert_eq!(values(&reply.expect("in time")), ["v"]);
    }
}
