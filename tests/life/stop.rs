//! SIGTERM and SIGINT: unary calls complete, streams end so that clients move to another proxy, and
//! the process exits within the drain timeout (S2).

use std::time::{Duration, Instant};

use crate::RANGE;
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::load::{H2Connection, Load, Role};
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::proxy_output::metric;
use crate::support::release::NEWEST;

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const LOCK: &str = "/v3lockpb.Lock/Lock";
const PUT: &str = "/etcdserverpb.KV/Put";

const NO_CLIENT_URL: &str = "--advertise-client-url=";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_unary_call_fails_under_load() {
    let cluster = Cluster::start(NEWEST, 1);
    let mut proxies = [
        Proxy::start(&cluster, &[NO_CLIENT_URL]),
        Proxy::start(&cluster, &[NO_CLIENT_URL]),
    ];
    let addresses = [
        proxies[0].address().to_owned(),
        proxies[1].address().to_owned(),
    ];
    let roles: Vec<Role> = (0..16)
        .map(|n| match n % 4 {
            0 => Role::Reader { timeout: None },
            1 => Role::Putter,
            2 => Role::Overwriter,
            _ => Role::Appender,
        })
        .collect();
    let load = Load::start(&[&addresses[0], &addresses[1]], &roles);
    load.wait_calls(300, Duration::from_secs(20)).await;
    for round in 0..6 {
        let which = round % 2;
        let signal = ["TERM", "INT", "TERM"][round % 3];
        let signalled = Instant::now();
        proxies[which].process.signal(signal);
        let status = proxies[which].process.wait(Duration::from_secs(10));
        println!("{signal}: exit {status} after {:?}", signalled.elapsed());
        assert_eq!(status.code(), Some(0), "{}", proxies[which].process.log());
        load.wait_calls(100, Duration::from_secs(20)).await;
        // A new process uses the same port at once.
        let listen = format!("--listen-addr={}", addresses[which]);
        proxies[which] = Proxy::start(&cluster, &[NO_CLIENT_URL, &listen]);
        load.wait_calls(100, Duration::from_secs(20)).await;
    }
    let report = load.finish().await;
    println!("{}", report.table());
    report.assert_no_violations();
    let ok = report.count(|_| true, Some(0));
    let all: u64 = [
        None,
        Some(0),
        Some(1),
        Some(2),
        Some(4),
        Some(8),
        Some(13),
        Some(14),
    ]
    .into_iter()
    .map(|code| report.count(|_| true, code))
    .sum();
    assert_eq!(ok, all, "failed calls:\n{}", report.table());
    report.assert_applied_once(&cluster.endpoint(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_with_unavailable_and_do_not_delay_the_exit() {
    let cluster = Cluster::start(NEWEST, 1);
    let mut proxy = Proxy::start(&cluster, &[NO_CLIENT_URL, "--drain-timeout=30s"]);
    let client = Client::connect(proxy.address()).await;
    let mut watch = client.call(WATCH, &[]).await;
    watch
        .send(Msg::new().msg(1, Msg::new().bytes(1, "k")))
        .await;
    assert!(watch.next().await.is_some(), "created");
    let lease = client.unary(GRANT, Msg::new().int(1, 60), &[]).await;
    let mut heartbeats = client.call(KEEP_ALIVE, &[]).await;
    let id = pb::int(lease.only(), &[2]);
    heartbeats.send(Msg::new().int(1, id)).await;
    assert!(heartbeats.next().await.is_some(), "a heartbeat");
    // One stream without a response yet, and one that is half-closed.
    let mut observe = client.call(OBSERVE, &[]).await;
    observe.send(Msg::new().bytes(1, "no-election")).await;
    observe.half_close();
    let mut other = client.call("/etcdserverpb.Watch/Watch", &[]).await;
    other
        .send(Msg::new().msg(1, Msg::new().bytes(1, "k")))
        .await;
    other.half_close();
    assert!(other.next().await.is_some(), "created");
    wait_calls(&proxy, 4.0);
    // An idle connection.
    let idle = Client::connect(proxy.address()).await;
    assert_eq!(
        idle.unary(RANGE, Msg::new().bytes(1, "k"), &[])
            .await
            .code(),
        Some(0)
    );

    let signalled = Instant::now();
    proxy.process.signal("TERM");
    for (name, stream) in [
        ("watch", watch),
        ("heartbeats", heartbeats),
        ("observe", observe),
        ("half-closed watch", other),
    ] {
        let reply = stream.finish().await;
        assert_eq!(reply.code(), Some(14), "{name}: {reply:?}");
        assert_eq!(reply.reset, None, "{name}");
    }
    let status = proxy.process.wait(Duration::from_secs(20));
    println!("exited after {:?}", signalled.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(
        signalled.elapsed() < Duration::from_secs(5),
        "{:?}",
        signalled.elapsed()
    );
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unary_call_may_take_the_whole_drain_timeout() {
    let cluster = Cluster::start(NEWEST, 1);
    let mut proxy = Proxy::start(&cluster, &[NO_CLIENT_URL, "--drain-timeout=20s"]);
    let direct = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let (request, key) = take_lock(&direct).await;
    let waiting = blocked(&proxy, &request).await;
    proxy.process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(proxy.process.exited(), None, "a unary call is open");
    // New connections are refused.
    let refused = tokio::net::TcpStream::connect(proxy.address()).await;
    assert!(refused.is_err(), "the proxy still accepts connections");
    let key = Msg::new().bytes(1, key);
    let unlocked = direct
        .unary("/v3lockpb.Lock/Unlock", key.as_ref(), None)
        .await;
    assert!(unlocked.ok(), "{unlocked:?}");
    let result = waiting.await.unwrap();
    assert!(result.ok(), "{result:?}");
    assert_eq!(proxy.process.wait(Duration::from_secs(5)).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_timeout_is_bounded_and_exits_with_zero() {
    let cluster = Cluster::start(NEWEST, 1);
    let direct = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let (request, _) = take_lock(&direct).await;
    let mut proxy = Proxy::start(&cluster, &[NO_CLIENT_URL, "--drain-timeout=1500ms"]);
    let _waiting = blocked(&proxy, &request).await;
    let signalled = Instant::now();
    proxy.process.signal("INT");
    let status = proxy.process.wait(Duration::from_secs(10));
    let took = signalled.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took >= Duration::from_millis(1400), "{took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_exits_at_once() {
    let cluster = Cluster::start(NEWEST, 1);
    let direct = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let (request, _) = take_lock(&direct).await;
    for second in ["TERM", "INT"] {
        let mut proxy = Proxy::start(&cluster, &[NO_CLIENT_URL, "--drain-timeout=60s"]);
        let _waiting = blocked(&proxy, &request).await;
        proxy.process.signal("TERM");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(proxy.process.exited(), None, "draining");
        let signalled = Instant::now();
        proxy.process.signal(second);
        proxy.process.wait(Duration::from_secs(3));
        println!("{second}: exited after {:?}", signalled.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connection_does_not_delay_the_exit() {
    let cluster = Cluster::start(NEWEST, 1);
    let mut proxy = Proxy::start(&cluster, &[NO_CLIENT_URL, "--drain-timeout=2s"]);
    let silent = tokio::net::TcpStream::connect(proxy.address())
        .await
        .unwrap();
    let connection = H2Connection::connect(proxy.address()).await.unwrap();
    let put = Msg::new().bytes(1, "k").bytes(2, "v");
    assert!(connection.unary(PUT, put.as_ref(), None).await.ok());
    let signalled = Instant::now();
    proxy.process.signal("TERM");
    let status = proxy.process.wait(Duration::from_secs(10));
    println!("exited after {:?}", signalled.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(
        signalled.elapsed() < Duration::from_secs(6),
        "{:?}",
        signalled.elapsed()
    );
    drop(silent);
}

/// Takes the lock directly at etcd. Returns another lock request, which will wait, and the unlock
/// key.
async fn take_lock(direct: &H2Connection) -> (Msg, Vec<u8>) {
    let request = lock_request(direct).await;
    let locked = direct.unary(LOCK, request.as_ref(), None).await;
    assert!(locked.ok(), "{locked:?}");
    (lock_request(direct).await, pb::bytes(&locked.message, &[2]))
}

async fn lock_request(direct: &H2Connection) -> Msg {
    let lease = direct
        .unary(GRANT, Msg::new().int(1, 600).as_ref(), None)
        .await;
    Msg::new()
        .bytes(1, "lock")
        .int(2, pb::int(&lease.message, &[2]))
}

/// Starts a Lock call through the proxy that waits for the lock.
async fn blocked(
    proxy: &Proxy,
    request: &Msg,
) -> tokio::task::JoinHandle<crate::support::load::CallResult> {
    let connection = H2Connection::connect(proxy.address()).await.unwrap();
    let request = request.clone();
    let waiting = tokio::spawn(async move { connection.unary(LOCK, request.as_ref(), None).await });
    wait_calls(proxy, 1.0);
    waiting
}

/// Waits until this many calls are open.
fn wait_calls(proxy: &Proxy, open: f64) {
    let limit = Duration::from_secs(10);
    crate::support::proxy_output::wait_metric(
        proxy.address(),
        "etcd_edge_open_calls",
        limit,
        |n| n == open,
    );
    assert_eq!(metric(proxy.address(), "etcd_edge_open_calls"), open);
}
