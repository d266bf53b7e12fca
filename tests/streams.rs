//! Tests of large streams and slow readers. The memory of the proxy stays flat, no client delays
//! another, and a cancellation reaches etcd at once (P2, P3).

mod support;

use std::time::{Duration, Instant};

use h2::RecvStream;
use support::cluster::Cluster;
use support::load::H2Connection;
use support::memory::{peak_kib, reset_peak};
use support::pb::{self, Msg};
use support::proxy::Proxy;
use support::release::NEWEST;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const LOCK: &str = "/v3lockpb.Lock/Lock";

const MIB: usize = 1 << 20;
/// Maximum memory of the proxy above its idle size for any amount of data, in KiB.
const ABOVE_REST_KIB: u64 = 30 * 1024;

/// Starts one member with `values` values of 1 MiB.
async fn filled(values: usize) -> Cluster {
    let cluster = Cluster::start(NEWEST, 1);
    let connection = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let value = vec![b'v'; MIB];
    for n in 0..values {
        let put = Msg::new().bytes(1, format!("big/{n}")).bytes(2, &value);
        let result = connection.unary(PUT, put.as_ref(), None).await;
        assert!(result.ok(), "{result:?}");
    }
    cluster
}

/// Starts a proxy that has served a call and is idle. Returns it with its memory size in KiB.
async fn idle_proxy(cluster: &Cluster) -> (Proxy, u64) {
    let proxy = Proxy::start(cluster, &["--advertise-client-url="]);
    let connection = H2Connection::connect(proxy.address()).await.unwrap();
    let key = Msg::new().bytes(1, "k");
    assert!(connection.unary(RANGE, key.as_ref(), None).await.ok());
    tokio::time::sleep(Duration::from_millis(200)).await;
    reset_peak(&proxy.process);
    let rest = proxy.process.rss_kib();
    (proxy, rest)
}

#[track_caller]
fn assert_flat(phase: &str, proxy: &Proxy, rest: u64, most: u64) {
    let above = peak_kib(&proxy.process).saturating_sub(rest);
    println!("{phase}: {above} KiB above {rest} KiB at rest");
    assert!(
        above <= most,
        "{phase}: {above} KiB above the idle size, more than {most}"
    );
}

/// Reads to the end. Returns the bytes of the gRPC messages, including framing.
async fn drain(body: &mut RecvStream) -> u64 {
    let mut bytes = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes += data.len() as u64;
    }
    let trailers = body.trailers().await.unwrap().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_of_300_mb_leaves_memory_flat() {
    let cluster = filled(300).await;
    let (proxy, rest) = idle_proxy(&cluster).await;
    let mut sizes = Vec::new();
    for address in [proxy.address(), &cluster.endpoint(0)] {
        let connection = H2Connection::connect(address).await.unwrap();
        let begun = Instant::now();
        let (response, _send) = connection.open(SNAPSHOT, &[]).await.unwrap();
        let bytes = drain(&mut response.await.unwrap().into_body()).await;
        println!("{bytes} bytes in {:?}", begun.elapsed());
        sizes.push(bytes);
    }
    assert!(sizes[0] >= 300 * MIB as u64, "{sizes:?}");
    assert_eq!(sizes[0], sizes[1], "the proxy changed the size");
    assert_flat("snapshot", &proxy, rest, ABOVE_REST_KIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_1_mib_leave_memory_flat() {
    let cluster = filled(1).await;
    let (proxy, rest) = idle_proxy(&cluster).await;
    let mut clients = Vec::new();
    for id in 0..8 {
        let address = proxy.address().to_owned();
        clients.push(tokio::spawn(async move {
            let connection = H2Connection::connect(&address).await.unwrap();
            let value: Vec<u8> = (0..MIB).map(|n| (n * (id + 3)) as u8).collect();
            let key = format!("mine/{id}");
            for _ in 0..12 {
                let put = Msg::new().bytes(1, &key).bytes(2, &value);
                let result = connection.unary(PUT, put.as_ref(), None).await;
                assert!(result.ok(), "{result:?}");
                let result = connection
                    .unary(RANGE, Msg::new().bytes(1, &key).as_ref(), None)
                    .await;
                assert!(result.ok(), "{result:?}");
                assert!(
                    pb::bytes(&result.message, &[2, 5]) == value,
                    "the value changed"
                );
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_flat("8 clients with 1 MiB values", &proxy, rest, ABOVE_REST_KIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_readers_delay_no_call_and_use_bounded_memory() {
    const STOPPED: usize = 20;
    let cluster = filled(40).await;
    let (proxy, rest) = idle_proxy(&cluster).await;
    let shared = H2Connection::connect(proxy.address()).await.unwrap();
    let mut stopped = Vec::new();
    for n in 0..STOPPED {
        // Snapshots, and reads too large to be buffered.
        let all = Msg::new().bytes(1, "big/").bytes(2, "big0").int(3, 30);
        let (path, message) = [(SNAPSHOT, &[][..]), (RANGE, all.as_ref())][n % 2];
        let (response, send) = shared.open(path, message).await.unwrap();
        let body = response.await.unwrap().into_body();
        stopped.push((body, send));
    }
    let other = H2Connection::connect(proxy.address()).await.unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let mut slowest = Duration::ZERO;
    let mut calls = 0;
    while Instant::now() < until {
        for connection in [&shared, &other] {
            let put = Msg::new().bytes(1, "small").bytes(2, "value");
            for (path, message) in [(PUT, put), (RANGE, Msg::new().bytes(1, "small"))] {
                let result = connection.unary(path, message.as_ref(), Some("5S")).await;
                assert!(result.ok(), "{path}: {result:?}");
                slowest = slowest.max(result.took);
                calls += 1;
            }
        }
    }
    println!("{calls} calls next to {STOPPED} stopped readers, the slowest {slowest:?}");
    assert!(
        slowest < Duration::from_secs(2),
        "a call was delayed: {slowest:?}"
    );
    // Each stream uses a window of 256 KiB towards etcd, and a queue beyond the client's window.
    let windows = STOPPED as u64 * (256 + 64 + 32);
    assert_flat("stopped readers", &proxy, rest, windows + 4 * 1024);
    // The readers receive everything once they continue.
    for (n, (mut body, _send)) in stopped.into_iter().enumerate() {
        let bytes = drain(&mut body).await;
        let least = [40, 30][n % 2] * MIB as u64;
        assert!(bytes >= least, "stream {n} got {bytes} bytes");
    }
    assert_flat("after they continued", &proxy, rest, ABOVE_REST_KIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_waits_if_etcd_does_not_read() {
    // The other end of a bidirectional stream is busy: the proxy buffers a bounded amount (P2).
    let mut etcd = support::scripted_etcd::ScriptedEtcd::start(1).await;
    let proxy = Proxy::start_with(&[etcd.flag()]);
    let client = support::grpc::Client::connect(proxy.address()).await;
    let mut stream = client.call("/future.Service/New", &[]).await;
    let call = etcd.next().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    reset_peak(&proxy.process);
    let rest = proxy.process.rss_kib();
    let writer = async {
        for _ in 0..64 {
            stream.send(vec![7; MIB]).await;
        }
    };
    let wrote = tokio::time::timeout(Duration::from_secs(3), writer).await;
    assert!(wrote.is_err(), "64 MiB were accepted");
    // The proxy buffers up to 2 MiB for a retry, and then drops the buffer.
    assert_flat("a writer without a reader", &proxy, rest, 4 * 1024);
    drop(call);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_and_deadline_reach_etcd_within_100_ms() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let direct = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let through = H2Connection::connect(proxy.address()).await.unwrap();
    let held = lock_request(&direct, "lock").await;
    assert!(direct.unary(LOCK, held.as_ref(), None).await.ok());
    for cause in ["cancel", "lost connection", "deadline"] {
        let mut gone_after = Vec::new();
        for _ in 0..5 {
            let waiter = lock_request(&direct, "lock").await;
            let begun = Instant::now();
            match cause {
                "deadline" => {
                    let waiting = through.unary(LOCK, waiter.as_ref(), Some("400m"));
                    let queued = wait_count(&direct, 2);
                    let (result, _) = tokio::join!(waiting, queued);
                    assert_eq!(result.code, Some(4), "{result:?}");
                    assert!(result.took >= Duration::from_millis(400), "{result:?}");
                    let over = begun + result.took;
                    wait_count(&direct, 1).await;
                    gone_after.push(over.elapsed());
                }
                "cancel" => {
                    let (response, mut send) = through.open(LOCK, waiter.as_ref()).await.unwrap();
                    wait_count(&direct, 2).await;
                    let cancelled = Instant::now();
                    send.send_reset(h2::Reason::CANCEL);
                    wait_count(&direct, 1).await;
                    gone_after.push(cancelled.elapsed());
                    drop(response);
                }
                _ => {
                    let stream = tokio::net::TcpStream::connect(proxy.address())
                        .await
                        .unwrap();
                    let socket = socket2::SockRef::from(&stream).try_clone().unwrap();
                    let client = support::grpc::Client::over(stream, "gone", "http").await;
                    let mut call = client.call(LOCK, &[]).await;
                    call.send(waiter).await;
                    call.half_close();
                    wait_count(&direct, 2).await;
                    let gone = Instant::now();
                    socket.shutdown(std::net::Shutdown::Both).unwrap();
                    wait_count(&direct, 1).await;
                    gone_after.push(gone.elapsed());
                }
            }
        }
        gone_after.sort_unstable();
        println!("{cause}: the waiter's key is deleted after {gone_after:?}");
        // A busy machine may delay some attempts, but not most.
        assert!(
            gone_after[2] < Duration::from_millis(100),
            "{cause}: {gone_after:?}"
        );
    }
}

/// Returns a request for a lock with its own lease.
async fn lock_request(connection: &H2Connection, name: &str) -> Msg {
    let lease = connection
        .unary(GRANT, Msg::new().int(1, 600).as_ref(), None)
        .await;
    assert!(lease.ok(), "{lease:?}");
    Msg::new()
        .bytes(1, name)
        .int(2, pb::int(&lease.message, &[2]))
}

/// Waits until the number of owners and waiters of the lock is `wanted`.
async fn wait_count(connection: &H2Connection, wanted: i64) {
    let all = Msg::new().bytes(1, "lock/").bytes(2, "lock0").int(9, 1);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let result = connection.unary(RANGE, all.as_ref(), None).await;
        let count = pb::int(&result.message, &[4]);
        if count == wanted {
            return;
        }
        assert!(
            Instant::now() < until,
            "{count} keys of the lock, not {wanted}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
