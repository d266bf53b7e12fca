//! Endpoints that die, stall, come back, or were never there: what clients see of it, under load
//! and without a retry of their own (E1 to E6).
//!
//! The short form runs here; `ETCD_EDGE_LONG=1` makes every outage as long as an operator's
//! nightmare and each happen twice.

mod support;

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::cluster::Cluster;
use support::load::{H2Connection, Load, Role};
use support::proxy::Proxy;
use support::proxy_output::{self, metric};
use support::release::NEWEST;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
/// RangeRequest { key: "k" }.
const KEY: &[u8] = b"\x0a\x01k";
/// PutRequest { key: "k", value: "v" }.
const KEY_VALUE: &[u8] = b"\x0a\x01k\x12\x01v";

const ROLES: [Role; 12] = [
    Role::Reader { timeout: None },
    Role::Reader { timeout: None },
    Role::Reader { timeout: None },
    Role::Reader {
        timeout: Some(("25S", 25_000)),
    },
    Role::Reader {
        timeout: Some(("25S", 25_000)),
    },
    Role::Reader {
        timeout: Some(("300m", 300)),
    },
    Role::Putter,
    Role::Putter,
    Role::Overwriter,
    Role::Overwriter,
    Role::Appender,
    Role::Appender,
];

fn is_long() -> bool {
    std::env::var_os("ETCD_EDGE_LONG").is_some()
}

/// How often each outage happens.
fn times() -> usize {
    2
}

/// The member that serves the proxy.
fn serving(proxy: &Proxy, cluster: &Cluster) -> usize {
    let endpoint = proxy_output::current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| endpoint.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{endpoint} is no member"))
}

/// Three members, a proxy, and load that flows.
async fn scene() -> (Cluster, Proxy, Load) {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let load = Load::start(&[proxy.address()], &ROLES);
    load.wait_calls(100, Duration::from_secs(20)).await;
    (cluster, proxy, load)
}

/// Ends the load and judges it.
async fn judge(what: &str, cluster: &mut Cluster, proxy: &Proxy, load: Load) {
    load.wait_calls(200, Duration::from_secs(30)).await;
    let account = load.finish().await;
    println!("{what}:\n{}", account.table());
    println!(
        "retries {}, hedged {}",
        metric(proxy.address(), "etcd_edge_retries_total"),
        metric(proxy.address(), "etcd_edge_hedged_reads_total")
    );
    account.assert_no_violations();
    (0..cluster.size()).for_each(|member| cluster.wait_healthy(member));
    account.assert_applied_once(&cluster.endpoint(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_serving_member_is_killed() {
    let (mut cluster, proxy, load) = scene().await;
    for _ in 0..times() {
        let member = serving(&proxy, &cluster);
        cluster.kill(member);
        load.wait_calls(200, Duration::from_secs(30)).await;
        assert_ne!(serving(&proxy, &cluster), member, "another serves");
        cluster.restart(member);
        cluster.wait_healthy(member);
        load.wait_calls(100, Duration::from_secs(30)).await;
    }
    judge("kill -9 of the serving member", &mut cluster, &proxy, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_serving_member_is_stopped() {
    let (mut cluster, proxy, load) = scene().await;
    for _ in 0..times() {
        let member = serving(&proxy, &cluster);
        cluster.stop(member);
        let begun = Instant::now();
        // Reads find out by themselves: 2 s of silence, and a second endpoint.
        while serving(&proxy, &cluster) == member {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "a stalled member serves on"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("another serves after {:?}", begun.elapsed());
        // Not those whose writes lie with the stopped member.
        load.wait_calls(100, Duration::from_secs(30)).await;
        let stopped = Duration::from_secs(if is_long() { 45 } else { 6 });
        tokio::time::sleep(stopped.saturating_sub(begun.elapsed())).await;
        cluster.resume(member);
        cluster.wait_healthy(member);
        load.wait_calls(100, Duration::from_secs(30)).await;
    }
    judge("SIGSTOP of the serving member", &mut cluster, &proxy, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_are_down_and_back() {
    let (mut cluster, proxy, load) = scene().await;
    for _ in 0..times() {
        (0..cluster.size()).for_each(|member| cluster.kill(member));
        tokio::time::sleep(Duration::from_secs(if is_long() { 20 } else { 5 })).await;
        (0..cluster.size()).for_each(|member| cluster.restart(member));
        let begun = Instant::now();
        load.wait_calls(50, Duration::from_secs(30)).await;
        println!("calls end again {:?} after the start", begun.elapsed());
        (0..cluster.size()).for_each(|member| cluster.wait_healthy(member));
        load.wait_calls(100, Duration::from_secs(30)).await;
    }
    judge("all members down and back", &mut cluster, &proxy, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_may_come_after_the_proxy() {
    let mut cluster = Cluster::start(NEWEST, 1);
    cluster.kill(0);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let lane = H2Connection::connect(proxy.address()).await.unwrap();
    // A deadline that is shorter than the wait is the client's own word (E6).
    for path in [RANGE, PUT] {
        let message = if path == PUT { KEY_VALUE } else { KEY };
        let told = lane.unary(path, message, Some("600m")).await;
        assert_eq!(told.code, Some(4), "{told:?}");
        assert!(told.took >= Duration::from_millis(600), "{told:?}");
        assert!(told.took < Duration::from_secs(5), "{told:?}");
    }
    let write = lane.unary(PUT, KEY_VALUE, None);
    let read = lane.unary(RANGE, KEY, Some("29S"));
    let start = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.restart(0);
    };
    let (write, read, ()) = tokio::join!(write, read, start);
    assert!(write.ok(), "{write:?}");
    assert!(read.ok(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_an_endpoint_is_bounded_and_makes_no_storm() {
    // An endpoint that hangs up at once, and one that says nothing: each with a proxy of its own,
    // or the second would slow the first one's dials down.
    tokio::join!(all_down(true), all_down(false));
}

async fn all_down(hangs_up: bool) {
    let endpoint = DumbListener::start(hangs_up);
    let flag = format!("--endpoints={}", endpoint.address);
    let proxy = Proxy::start_with(&[&flag, "--workers=2"]);
    let mut waiting = Vec::new();
    for n in 0..40 {
        let address = proxy.address().to_owned();
        waiting.push(tokio::spawn(async move {
            let lane = H2Connection::connect(&address).await.unwrap();
            let (path, message) = [(RANGE, KEY), (PUT, KEY_VALUE)][n % 2];
            lane.unary(path, message, None).await
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = proxy.process.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let cpu = proxy.process.cpu_ticks() - before;
    assert!(cpu < 80, "a busy loop: {cpu} ticks in 8 s");
    for call in waiting {
        let told = call.await.unwrap();
        assert_eq!(told.code, Some(14), "{told:?}");
        // Nothing was sent, so even a write may be sent again (E3).
        assert_eq!(told.text, "there is no connection available");
        assert!(told.took >= Duration::from_secs(20), "{told:?}");
        assert!(told.took < Duration::from_secs(45), "{told:?}");
    }
    let dials = endpoint.count();
    println!("hangs up: {hangs_up}: {dials} dials in 30 s, {cpu} ticks of CPU in 8 s");
    // Seven to reach the longest pause of 3 s, then one each, for each of two workers at most; a
    // silent endpoint takes 3 s to give up on besides.
    assert!(dials >= 4, "it goes on dialing: {dials}");
    assert!(dials <= 60, "a storm: {dials}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_accepts_and_says_nothing_fails_no_read() {
    let cluster = Cluster::start(NEWEST, 1);
    let silent = DumbListener::start(false);
    let endpoints = format!("--endpoints={},{}", silent.address, cluster.endpoint(0));
    // Which one is picked first is chance.
    let proxies: Vec<Proxy> = (0..6).map(|_| Proxy::start_with(&[&endpoints])).collect();
    let mut calls = Vec::new();
    for proxy in &proxies {
        for (path, message) in [(RANGE, KEY), (PUT, KEY_VALUE)] {
            let address = proxy.address().to_owned();
            calls.push(tokio::spawn(async move {
                let lane = H2Connection::connect(&address).await.unwrap();
                lane.unary(path, message, Some("20S")).await
            }));
        }
    }
    let mut slowest = Duration::ZERO;
    for call in calls {
        let told = call.await.unwrap();
        assert!(told.ok(), "{told:?}");
        slowest = slowest.max(told.took);
    }
    println!(
        "slowest call {slowest:?}, {} connects to the silent one",
        silent.count()
    );
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    for proxy in &proxies {
        let picked = proxy_output::current_endpoint(proxy).unwrap();
        assert!(picked.ends_with(&cluster.endpoint(0)), "{picked} serves");
    }
}

/// Accepts connections, counts them, and either closes them or says nothing.
struct DumbListener {
    address: String,
    count: Arc<AtomicUsize>,
}

impl DumbListener {
    fn start(hangs_up: bool) -> DumbListener {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                if !hangs_up {
                    // Until the other side gives up.
                    std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
                }
            }
        });
        DumbListener { address, count }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}
