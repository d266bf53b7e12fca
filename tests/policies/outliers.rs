//! Tests of outlier detection with a member that is paused, slow, or returns errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::scene::{DelayProxy, LIMIT, put, puts, since, wait_endpoints, warm};
use crate::support::cluster::Cluster;
use crate::support::load::{H2Connection, Load, Role};
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{log_entries, metric, wait_metric};
use crate::support::release::NEWEST;
use crate::support::scripted_etcd::{Conn, ScriptedEtcd};

const EJECTIONS: &str = "etcd_edge_endpoint_ejections_total";

/// Clients that put in a loop, each on its own connection.
struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(address: &str, count: usize) -> Writers {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let client = |_| {
            let (stop, done, address) = (stop.clone(), Arc::clone(&done), address.to_owned());
            tokio::spawn(async move {
                let connection = H2Connection::connect(&address).await.expect("the proxy");
                while !stop.load(Ordering::SeqCst) {
                    put(&connection).await;
                    AtomicUsize::fetch_add(&done, 1, Ordering::SeqCst);
                }
            })
        };
        let tasks = (0..count).map(client).collect();
        Writers { stop, done, tasks }
    }

    async fn finish(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a client that does not panic");
        }
        self.done.load(Ordering::SeqCst)
    }
}

/// Returns the share of one member in the puts of some time.
async fn share(cluster: &Cluster, member: usize, time: Duration) -> f64 {
    let before = puts(cluster);
    tokio::time::sleep(time).await;
    let counts = since(cluster, &before);
    let all: f64 = counts.iter().sum();
    assert!(all > 50.0, "too few puts: {counts:?}");
    counts[member] / all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_member_gets_no_calls_and_returns_gradually() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let flags = [
        "--endpoint-policy=round-robin",
        "--workers=1",
        "--advertise-client-url=",
    ];
    let proxy = Proxy::start(&cluster, &flags);
    warm(&cluster, &proxy).await;
    let stopped = (cluster.leader() + 1) % 3;
    let readers = Load::start(&[proxy.address()], &[Role::Reader { timeout: None }; 6]);
    let writers = Writers::start(proxy.address(), 6);
    let fair = share(&cluster, stopped, Duration::from_secs(2)).await;
    assert!((0.28..0.39).contains(&fair), "{fair}");

    cluster.stop(stopped);
    let endpoint = cluster.endpoint(stopped);
    let state = |state: &'static str| {
        let endpoint = endpoint.clone();
        move |shown: &[serde_json::Value]| {
            let of = |e: &&serde_json::Value| e["endpoint"].as_str().unwrap().ends_with(&endpoint);
            let own = shown.iter().find(of).expect("the endpoint is listed");
            own["state"] == state || state == "away" && own["state"] != "balanced"
        }
    };
    let began = Instant::now();
    wait_endpoints(&proxy, "it gets no calls", LIMIT, state("away")).await;
    println!("no calls {:?} after the pause", began.elapsed());
    // Writes at the paused member may block for long. The readers must not.
    readers.wait_calls(500, LIMIT).await;
    cluster.resume(stopped);
    wait_endpoints(&proxy, "it is back", LIMIT, state("balanced")).await;
    let first = share(&cluster, stopped, Duration::from_secs(2)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let last = share(&cluster, stopped, Duration::from_secs(2)).await;
    println!("its share: {fair:.2} before, {first:.2} after its return, {last:.2} at the end");
    assert!(first < 0.2, "{first}");
    assert!((0.28..0.39).contains(&last), "{last}");
    let report = readers.finish().await;
    println!("{}", report.table());
    report.assert_no_violations();
    println!("{} puts", writers.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_member_with_only_writes_is_ejected() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--endpoint-policy=least-loaded", "--workers=1"]);
    warm(&cluster, &proxy).await;
    let stopped = (cluster.leader() + 1) % 3;
    let writers = Writers::start(proxy.address(), 12);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop(stopped);
    wait_metric(proxy.address(), EJECTIONS, LIMIT, |count| count >= 1.0);
    let line = &log_entries(&proxy, "endpoint ejected by outlier detection")[0];
    assert_eq!(line["reason"], "silent");
    assert!(
        line["endpoint"]
            .as_str()
            .unwrap()
            .ends_with(&cluster.endpoint(stopped))
    );
    cluster.resume(stopped);
    writers.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_member_is_ejected_but_used_as_the_last_one() {
    // A real member does not refuse writes while the others serve.
    let mut etcd = ScriptedEtcd::start(3).await;
    let flags = ["--endpoint-policy=round-robin", "--workers=1"];
    let proxy = Proxy::start_with(&[&[&etcd.flag()[..]], &flags[..]].concat());
    let writers = Writers::start(proxy.address(), 4);
    let mut refused = 0;
    let ejected = || metric(proxy.address(), EJECTIONS) >= 1.0;
    let until = Instant::now() + LIMIT;
    let mut calls = 0;
    while calls % 200 != 0 || !ejected() {
        calls += 1;
        assert!(Instant::now() < until, "{}", proxy.process.tail());
        let mut call = etcd.next().await;
        if call.endpoint == 1 {
            refused += 1;
            call.try_trailers_only(&[("grpc-status", "14"), ("grpc-message", "no")]);
        } else {
            call.respond("");
        }
    }
    println!("ejected after {refused} refusals of {calls} calls");
    let line = &log_entries(&proxy, "endpoint ejected by outlier detection")[0];
    assert_eq!(line["reason"], "errors");
    // Calls in flight may still arrive, then no more.
    for n in 0..400 {
        let mut call = etcd.next().await;
        assert!(
            call.endpoint != 1 || n < 20,
            "the ejected endpoint gets calls"
        );
        call.respond("");
    }
    for endpoint in [0, 2] {
        etcd.set_silent(endpoint, true);
        etcd.conns(endpoint).iter().for_each(Conn::close);
    }
    let until = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < until, "no endpoint is used");
        let mut call = etcd.next().await;
        let last = call.endpoint == 1;
        call.try_trailers_only(&[("grpc-status", "0")]);
        if last {
            break;
        }
    }
    drop(etcd);
    writers.tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_member_is_ejected_and_returns_when_it_is_fast_again() {
    let cluster = Cluster::start(NEWEST, 3);
    let slow = (cluster.leader() + 1) % 3;
    let delay_proxy = DelayProxy::start(cluster.endpoint(slow));
    let endpoints: Vec<String> = (0..3)
        .map(|member| match member == slow {
            true => delay_proxy.address().to_owned(),
            false => cluster.endpoint(member),
        })
        .collect();
    let endpoints = format!("--endpoints={}", endpoints.join(","));
    let proxy = Proxy::start_with(&[&endpoints, "--endpoint-policy=round-robin", "--workers=1"]);
    warm(&cluster, &proxy).await;
    let writers = Writers::start(proxy.address(), 6);
    let fair = share(&cluster, slow, Duration::from_secs(1)).await;
    assert!((0.25..0.42).contains(&fair), "{fair}");
    assert_eq!(metric(proxy.address(), EJECTIONS), 0.0);

    delay_proxy.delay(300);
    wait_metric(proxy.address(), EJECTIONS, LIMIT, |count| count == 1.0);
    let line = &log_entries(&proxy, "endpoint ejected by outlier detection")[0];
    assert_eq!(
        (&line["reason"], &line["level"]),
        (&"latency".into(), &"warn".into())
    );
    assert!(
        line["endpoint"]
            .as_str()
            .unwrap()
            .ends_with(delay_proxy.address())
    );
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(share(&cluster, slow, Duration::from_secs(2)).await, 0.0);

    delay_proxy.delay(0);
    let balanced = |shown: &[serde_json::Value]| shown.iter().all(|e| e["state"] == "balanced");
    wait_endpoints(&proxy, "it is back", LIMIT, balanced).await;
    let first = share(&cluster, slow, Duration::from_secs(2)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let last = share(&cluster, slow, Duration::from_secs(2)).await;
    println!("its share: {fair:.2} before, {first:.2} after its return, {last:.2} at the end");
    assert!(first < 0.2, "{first}");
    assert!((0.25..0.42).contains(&last), "{last}");
    assert_eq!(metric(proxy.address(), EJECTIONS), 1.0);
    writers.finish().await;
}
