//! Endpoints that die, stall, return, or were never available: the effect on clients under load
//! without retries of their own (E1 to E6).
//!
//! By default the outages are short. `ETCD_EDGE_LONG=1` makes them longer.

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

/// How often each outage is repeated.
fn times() -> usize {
    2
}

/// Returns the index of the member that the proxy uses.
fn current_member(proxy: &Proxy, cluster: &Cluster) -> usize {
    let endpoint = proxy_output::current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| endpoint.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{endpoint} is not a member"))
}

/// Starts three members, a proxy, and load on it.
async fn scene() -> (Cluster, Proxy, Load) {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let load = Load::start(&[proxy.address()], &ROLES);
    load.wait_calls(100, Duration::from_secs(20)).await;
    (cluster, proxy, load)
}

/// Ends the load and checks its results.
async fn finish(what: &str, cluster: &mut Cluster, proxy: &Proxy, load: Load) {
    load.wait_calls(200, Duration::from_secs(30)).await;
    let report = load.finish().await;
    println!("{what}:\n{}", report.table());
    println!(
        "retries {}, hedged {}",
        metric(proxy.address(), "etcd_edge_retries_total"),
        metric(proxy.address(), "etcd_edge_hedged_reads_total")
    );
    report.assert_no_violations();
    (0..cluster.size()).for_each(|member| cluster.wait_healthy(member));
    report.assert_applied_once(&cluster.endpoint(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_survive_a_kill_of_the_current_member() {
    let (mut cluster, proxy, load) = scene().await;
    for _ in 0..times() {
        let member = current_member(&proxy, &cluster);
        cluster.kill(member);
        load.wait_calls(200, Duration::from_secs(30)).await;
        assert_ne!(current_member(&proxy, &cluster), member, "no failover");
        cluster.restart(member);
        cluster.wait_healthy(member);
        load.wait_calls(100, Duration::from_secs(30)).await;
    }
    finish("kill -9 of the current member", &mut cluster, &proxy, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_survive_a_stop_of_the_current_member() {
    let (mut cluster, proxy, load) = scene().await;
    for _ in 0..times() {
        let member = current_member(&proxy, &cluster);
        cluster.stop(member);
        let begun = Instant::now();
        // Reads detect the stall: 2 s of silence, then a second endpoint.
        while current_member(&proxy, &cluster) == member {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the proxy still uses the stalled member"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("failover after {:?}", begun.elapsed());
        // Clients with a write at the stopped member still wait.
        load.wait_calls(100, Duration::from_secs(30)).await;
        let stopped = Duration::from_secs(if is_long() { 45 } else { 6 });
        tokio::time::sleep(stopped.saturating_sub(begun.elapsed())).await;
        cluster.resume(member);
        cluster.wait_healthy(member);
        load.wait_calls(100, Duration::from_secs(30)).await;
    }
    finish("SIGSTOP of the current member", &mut cluster, &proxy, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_survive_an_outage_of_all_members() {
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
    finish("all members down and back", &mut cluster, &proxy, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_an_etcd_that_starts_later() {
    let mut cluster = Cluster::start(NEWEST, 1);
    cluster.kill(0);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let connection = H2Connection::connect(proxy.address()).await.unwrap();
    // A deadline shorter than the wait is the client's own deadline, so DEADLINE_EXCEEDED is right
    // (E6).
    for path in [RANGE, PUT] {
        let message = if path == PUT { KEY_VALUE } else { KEY };
        let result = connection.unary(path, message, Some("600m")).await;
        assert_eq!(result.code, Some(4), "{result:?}");
        assert!(result.took >= Duration::from_millis(600), "{result:?}");
        assert!(result.took < Duration::from_secs(5), "{result:?}");
    }
    let write = connection.unary(PUT, KEY_VALUE, None);
    let read = connection.unary(RANGE, KEY, Some("29S"));
    let start = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.restart(0);
    };
    let (write, read, ()) = tokio::join!(write, read, start);
    assert!(write.ok(), "{write:?}");
    assert!(read.ok(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_for_an_endpoint_is_bounded_without_a_dial_storm() {
    // One endpoint closes each connection, one stays silent. Each has its own proxy, because the
    // second would slow down the dials to the first.
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
            let connection = H2Connection::connect(&address).await.unwrap();
            let (path, message) = [(RANGE, KEY), (PUT, KEY_VALUE)][n % 2];
            connection.unary(path, message, None).await
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = proxy.process.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let cpu = proxy.process.cpu_ticks() - before;
    assert!(cpu < 80, "a busy loop: {cpu} ticks in 8 s");
    for call in waiting {
        let result = call.await.unwrap();
        assert_eq!(result.code, Some(14), "{result:?}");
        // Nothing was sent, so clients may even retry a write (E3).
        assert_eq!(result.text, "there is no connection available");
        assert!(result.took >= Duration::from_secs(20), "{result:?}");
        assert!(result.took < Duration::from_secs(45), "{result:?}");
    }
    let dials = endpoint.count();
    println!("hangs up: {hangs_up}: {dials} dials in 30 s, {cpu} ticks of CPU in 8 s");
    // Each of at most two workers dials seven times until the backoff reaches its maximum of 3 s,
    // then once per 3 s. A dial to a silent endpoint takes another 3 s to time out.
    assert!(dials >= 4, "dialing stopped: {dials}");
    assert!(dials <= 60, "a dial storm: {dials}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_endpoint_fails_no_call() {
    let cluster = Cluster::start(NEWEST, 1);
    let silent = DumbListener::start(false);
    let endpoints = format!("--endpoints={},{}", silent.address, cluster.endpoint(0));
    // The first endpoint is picked at random, so several proxies cover both cases.
    let proxies: Vec<Proxy> = (0..6).map(|_| Proxy::start_with(&[&endpoints])).collect();
    let mut calls = Vec::new();
    for proxy in &proxies {
        for (path, message) in [(RANGE, KEY), (PUT, KEY_VALUE)] {
            let address = proxy.address().to_owned();
            calls.push(tokio::spawn(async move {
                let connection = H2Connection::connect(&address).await.unwrap();
                connection.unary(path, message, Some("20S")).await
            }));
        }
    }
    let mut slowest = Duration::ZERO;
    for call in calls {
        let result = call.await.unwrap();
        assert!(result.ok(), "{result:?}");
        slowest = slowest.max(result.took);
    }
    println!(
        "slowest call {slowest:?}, {} connections to the silent endpoint",
        silent.count()
    );
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    for proxy in &proxies {
        let picked = proxy_output::current_endpoint(proxy).unwrap();
        assert!(picked.ends_with(&cluster.endpoint(0)), "{picked} is used");
    }
}

/// A listener that counts connections, and either closes them or never responds.
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
                    // Reads until the proxy closes the connection.
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
