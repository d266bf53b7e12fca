//! Reads that ask the same share what is sent after they came, and nothing else (R1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, LIMIT};
use crate::support::load::Lane;
use crate::support::pages;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::{RANGE, asked_of_etcd, put, range, scene, serializable, values};

/// A thousand clients are not to be slowed by another thousand.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Clients that ask the same again and again, each on a connection of its own.
struct Crowd {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    async fn start(address: &str, count: usize, message: Msg, pause: Duration) -> Crowd {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut lanes = Vec::new();
        for _ in 0..count {
            lanes.push(Lane::connect(address).await.expect("the proxy accepts"));
        }
        let clients = lanes.into_iter().map(|lane| {
            let (stop, done): (_, Arc<AtomicU64>) = (stop.clone(), Arc::clone(&done));
            let message = message.clone();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let told = lane.unary(RANGE, message.as_ref(), None).await;
                    assert!(told.ok(), "{told:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
            })
        });
        let clients = clients.collect();
        Crowd {
            stop,
            done,
            clients,
        }
    }

    /// Answers so far.
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("every read is answered");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_are_few_reads_at_etcd() {
    let _alone = ALONE.lock().await;
    let (cluster, proxy) = scene(&["--workers=1"]);
    let crowd = Crowd::start(proxy.address(), 1_000, range("hot", ""), Duration::ZERO).await;
    let (asked, done) = (asked_of_etcd(&cluster), crowd.done());
    sleep(Duration::from_secs(4)).await;
    let (asked, done) = (asked_of_etcd(&cluster) - asked, crowd.done() - done);
    crowd.finish().await;
    println!("{done} reads, {asked} at etcd");
    assert!(done > 2_000, "{done}");
    assert!(asked <= done as f64 / 100.0, "{asked} of {done}");
    let shared = pages::metric(proxy.address(), "etcd_edge_reads_shared_total");
    assert!(shared > done as f64 * 0.9, "{shared} of {done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_of_what_is_kept_are_two_reads_a_second() {
    const SECONDS: u32 = 8;
    let _alone = ALONE.lock().await;
    let (cluster, proxy) = scene(&["--workers=2"]);
    let question = serializable(range("hot", ""));
    // What they cost etcd does not depend on their pace; a build that is not optimised has enough to do.
    let pause = Duration::from_millis(300);
    let crowd = Crowd::start(proxy.address(), 1_000, question, pause).await;
    let covers = "etcd_edge_cache_covers";
    pages::wait_metric(proxy.address(), covers, LIMIT, |covers| covers == 1.0);
    let (asked, done) = (asked_of_etcd(&cluster), crowd.done());
    sleep(Duration::from_secs(SECONDS.into())).await;
    let (asked, done) = (asked_of_etcd(&cluster) - asked, crowd.done() - done);
    crowd.finish().await;
    println!("{done} reads, {asked} at etcd");
    assert!(done > 2_000, "{done}");
    assert!(asked <= f64::from(2 * SECONDS), "{asked} of {done}");
}

/// However many ask the same, what was written before is seen: by whoever asks after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_before_is_seen() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let crowd = Crowd::start(proxy.address(), 60, range("hot", ""), Duration::ZERO).await;
    let direct = Client::connect(&cluster.endpoint(cluster.leader())).await;
    let client = Client::connect(proxy.address()).await;
    for n in 0..500 {
        put(&direct, "hot", &n.to_string()).await;
        let reply = client.unary(RANGE, range("hot", ""), &[]).await;
        assert_eq!(values(&reply), [n.to_string()]);
    }
    crowd.finish().await;
    let shared = pages::metric(proxy.address(), "etcd_edge_reads_shared_total");
    assert!(shared > 500.0, "{shared}");
}

/// Whoever leaves, or has no more time, leaves alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_takes_nobody_along() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--workers=1"]);
    let client = Client::connect(proxy.address()).await;
    put(&client, "hot", "v").await;
    cluster.stop(0);
    // The first is on its way, the others wait for it.
    let mut calls = Vec::new();
    for n in 0..40 {
        let hurried: &[(&str, &str)] = if n % 4 == 1 {
            &[("grpc-timeout", "200m")]
        } else {
            &[]
        };
        let mut call = client.call(RANGE, hurried).await;
        call.send(range("hot", "")).await;
        call.half_close();
        calls.push((n, call));
    }
    let mut left = 0;
    let mut kept = Vec::new();
    for (n, mut call) in calls {
        match n % 4 {
            0 => {
                call.cancel();
                left += 1;
            }
            1 => assert_eq!(call.finish().await.code(), Some(4), "call {n}"),
            _ => kept.push(call),
        }
    }
    assert_eq!((left, kept.len()), (10, 20));
    cluster.resume(0);
    for call in kept {
        let reply = tokio::time::timeout(LIMIT, call.finish()).await;
        assert_eq!(values(&reply.expect("in time")), ["v"]);
    }
}
