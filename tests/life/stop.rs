//! SIGTERM and SIGINT: unary calls complete, streams end so that clients move to another proxy, and
//! the process exits within the drain timeout (S2).

use std::process::Command;
use std::time::{Duration, Instant};

use crate::RANGE;
use crate::support::cluster::Cluster;
use crate::support::exit_cleanup;
use crate::support::grpc::Client;
use crate::support::load::{H2Connection, Load, Role};
use crate::support::pb::{self, Msg};
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{log_entries, metric, wait_metric};
use crate::support::release::NEWEST;

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const LOCK: &str = "/v3lockpb.Lock/Lock";
const PUT: &str = "/etcdserverpb.KV/Put";

const NO_CLIENT_URL: &str = "--advertise-client-url=";

/// Time after the first signal in which further ones count as the same (`SIGNAL_REPEAT_TIME`).
const REPEAT: Duration = Duration::from_secs(1);

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
        assert_eq!(status.code(), Some(0), "{}", proxies[which].process.tail());
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
    wait_calls(proxy.address(), 4.0);
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
    let waiting = blocked(proxy.address(), &request).await;
    proxy.process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(proxy.process.exited(), None, "a unary call is open");
    // New connections are refused.
    let refused = tokio::net::TcpStream::connect(proxy.address()).await;
    assert!(refused.is_err(), "the proxy still accepts connections");
    unlock(&direct, &key).await;
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
    let _waiting = blocked(proxy.address(), &request).await;
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
        let _waiting = blocked(proxy.address(), &request).await;
        proxy.process.signal("TERM");
        tokio::time::sleep(REPEAT + Duration::from_millis(100)).await;
        assert_eq!(proxy.process.exited(), None, "draining");
        let signalled = Instant::now();
        proxy.process.signal(second);
        let status = proxy.process.wait(Duration::from_secs(3));
        println!("{second}: exited after {:?}", signalled.elapsed());
        assert_eq!(status.code(), Some(1), "{second}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_within_a_second_count_as_one() {
    let cluster = Cluster::start(NEWEST, 1);
    let direct = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let (request, key) = take_lock(&direct).await;
    let mut proxy = Proxy::start(&cluster, &[NO_CLIENT_URL, "--drain-timeout=20s"]);
    let waiting = blocked(proxy.address(), &request).await;
    proxy.process.signal("TERM");
    // Signals of one kind merge while the process has not received the first, so each is awaited.
    let repeated = "signal repeated: the drain continues";
    for (count, signal) in [(0, "TERM"), (1, "TERM"), (2, "INT")] {
        let until = Instant::now() + Duration::from_secs(5);
        while log_entries(&proxy, "draining").is_empty()
            || log_entries(&proxy, repeated).len() < count
        {
            assert!(Instant::now() < until, "{}", proxy.process.tail());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(proxy.process.exited(), None, "{}", proxy.process.tail());
        proxy.process.signal(signal);
    }
    tokio::time::sleep(REPEAT).await;
    assert_eq!(proxy.process.exited(), None, "the drain was cut short");
    assert_eq!(log_entries(&proxy, repeated).len(), 3);
    unlock(&direct, &key).await;
    let result = waiting.await.unwrap();
    assert!(result.ok(), "{result:?}");
    assert_eq!(proxy.process.wait(Duration::from_secs(5)).code(), Some(0));
}

/// GNU `timeout` sends its signal to its child, and then to the process group of both. The two may
/// merge before the proxy sees them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_below_gnu_timeout_lets_calls_finish() {
    let cluster = Cluster::start(NEWEST, 1);
    let direct = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let (request, key) = take_lock(&direct).await;
    let mut command = Command::new("timeout");
    command.args(["600", env!("CARGO_BIN_EXE_etcd-edge"), "start"]);
    command.args(["--listen-addr=127.0.0.1:0", "--drain-timeout=20s"]);
    command.arg(NO_CLIENT_URL).args(cluster.proxy_flags());
    let mut timeout = Process::spawn("timeout", &mut command);
    let address = timeout.wait_line(Duration::from_secs(20), |line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        entry["address"].as_str().map(str::to_owned)
    });
    let child = child_of(timeout.pid());
    exit_cleanup::child(child);
    let waiting = blocked(&address.unwrap(), &request).await;
    // SIGTERM has the same effect on `timeout` as the end of the 600 s.
    timeout.signal("TERM");
    tokio::time::sleep(REPEAT + Duration::from_millis(100)).await;
    assert_eq!(timeout.exited(), None, "{}", timeout.tail());
    unlock(&direct, &key).await;
    let result = waiting.await.unwrap();
    assert!(result.ok(), "{result:?}");
    timeout.wait(Duration::from_secs(5));
    exit_cleanup::reaped(child);
    let log = timeout.log();
    assert!(log.contains("\"drained\""), "{log}");
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

/// Unlocks directly at etcd, so that the next lock request is granted.
async fn unlock(direct: &H2Connection, key: &[u8]) {
    let key = Msg::new().bytes(1, key);
    let unlocked = direct
        .unary("/v3lockpb.Lock/Unlock", key.as_ref(), None)
        .await;
    assert!(unlocked.ok(), "{unlocked:?}");
}

/// Returns the id of the only child of a process.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("the process runs");
    children.trim().parse().expect("one child")
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
    address: &str,
    request: &Msg,
) -> tokio::task::JoinHandle<crate::support::load::CallResult> {
    let connection = H2Connection::connect(address).await.unwrap();
    let request = request.clone();
    let waiting = tokio::spawn(async move { connection.unary(LOCK, request.as_ref(), None).await });
    wait_calls(address, 1.0);
    waiting
}

/// Waits until this many calls are open.
fn wait_calls(address: &str, open: f64) {
    let limit = Duration::from_secs(10);
    wait_metric(address, "etcd_edge_open_calls", limit, |n| n == open);
    assert_eq!(metric(address, "etcd_edge_open_calls"), open);
}
