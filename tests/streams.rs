//! Much data and slow readers through the proxy: its memory stays flat, nobody waits for another,
//! and what a client no longer wants ends at etcd at once (P2, P3).

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
/// What the proxy may need above its rest, whatever passes through.
const ABOVE_REST_KIB: u64 = 30 * 1024;

/// One member with so many values of 1 MiB.
async fn filled(values: usize) -> Cluster {
    let cluster = Cluster::start(NEWEST, 1);
    let lane = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    let value = vec![b'v'; MIB];
    for n in 0..values {
        let put = Msg::new().bytes(1, format!("big/{n}")).bytes(2, &value);
        let told = lane.unary(PUT, put.as_ref(), None).await;
        assert!(told.ok(), "{told:?}");
    }
    cluster
}

/// A proxy that has served a call and come to rest.
async fn rested(cluster: &Cluster) -> (Proxy, u64) {
    let proxy = Proxy::start(cluster, &["--advertise-client-url="]);
    let lane = H2Connection::connect(proxy.address()).await.unwrap();
    let key = Msg::new().bytes(1, "k");
    assert!(lane.unary(RANGE, key.as_ref(), None).await.ok());
    tokio::time::sleep(Duration::from_millis(200)).await;
    reset_peak(&proxy.process);
    let rest = proxy.process.rss_kib();
    (proxy, rest)
}

#[track_caller]
fn assert_flat(what: &str, proxy: &Proxy, rest: u64, most: u64) {
    let above = peak_kib(&proxy.process).saturating_sub(rest);
    println!("{what}: {above} KiB above a rest of {rest} KiB");
    assert!(
        above <= most,
        "{what}: {above} KiB above rest, more than {most}"
    );
}

/// Reads to the end; the bytes of gRPC messages, framing included.
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
async fn a_snapshot_of_300_mb_leaves_memory_flat() {
    let cluster = filled(300).await;
    let (proxy, rest) = rested(&cluster).await;
    let mut sizes = Vec::new();
    for address in [proxy.address(), &cluster.endpoint(0)] {
        let lane = H2Connection::connect(address).await.unwrap();
        let begun = Instant::now();
        let (response, _send) = lane.open(SNAPSHOT, &[]).await.unwrap();
        let bytes = drain(&mut response.await.unwrap().into_body()).await;
        println!("{bytes} bytes in {:?}", begun.elapsed());
        sizes.push(bytes);
    }
    assert!(sizes[0] >= 300 * MIB as u64, "{sizes:?}");
    assert_eq!(sizes[0], sizes[1], "as much as without a proxy");
    assert_flat("snapshot", &proxy, rest, ABOVE_REST_KIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_1_mib_leave_memory_flat() {
    let cluster = filled(1).await;
    let (proxy, rest) = rested(&cluster).await;
    let mut clients = Vec::new();
    for id in 0..8 {
        let address = proxy.address().to_owned();
        clients.push(tokio::spawn(async move {
            let lane = H2Connection::connect(&address).await.unwrap();
            let value: Vec<u8> = (0..MIB).map(|n| (n * (id + 3)) as u8).collect();
            let key = format!("mine/{id}");
            for _ in 0..12 {
                let put = Msg::new().bytes(1, &key).bytes(2, &value);
                let told = lane.unary(PUT, put.as_ref(), None).await;
                assert!(told.ok(), "{told:?}");
                let told = lane
                    .unary(RANGE, Msg::new().bytes(1, &key).as_ref(), None)
                    .await;
                assert!(told.ok(), "{told:?}");
                assert!(
                    pb::bytes(&told.message, &[2, 5]) == value,
                    "the value came back changed"
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
async fn readers_that_stop_stall_nobody_and_hold_their_windows() {
    const STOPPED: usize = 20;
    let cluster = filled(40).await;
    let (proxy, rest) = rested(&cluster).await;
    let shared = H2Connection::connect(proxy.address()).await.unwrap();
    let mut stopped = Vec::new();
    for n in 0..STOPPED {
        // Snapshots, and reads too large to be held.
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
        for lane in [&shared, &other] {
            let put = Msg::new().bytes(1, "small").bytes(2, "value");
            for (path, message) in [(PUT, put), (RANGE, Msg::new().bytes(1, "small"))] {
                let told = lane.unary(path, message.as_ref(), Some("5S")).await;
                assert!(told.ok(), "{path}: {told:?}");
                slowest = slowest.max(told.took);
                calls += 1;
            }
        }
    }
    println!("{calls} calls beside {STOPPED} stopped readers, the slowest {slowest:?}");
    assert!(
        slowest < Duration::from_secs(2),
        "somebody waited: {slowest:?}"
    );
    // Towards etcd a window of 256 KiB each; towards the client what is queued beyond its window.
    let windows = STOPPED as u64 * (256 + 64 + 32);
    assert_flat("stopped readers", &proxy, rest, windows + 4 * 1024);
    // They get all of it once they read on.
    for (n, (mut body, _send)) in stopped.into_iter().enumerate() {
        let bytes = drain(&mut body).await;
        let least = [40, 30][n % 2] * MIB as u64;
        assert!(bytes >= least, "stream {n} got {bytes} bytes");
    }
    assert_flat("and when they read on", &proxy, rest, ABOVE_REST_KIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_etcd_does_not_read_waits() {
    // A bidirectional stream whose other end is busy: nothing piles up here (P2).
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
    assert!(wrote.is_err(), "64 MiB went into nowhere");
    // Kept for sending it again: 2 MiB at most, and then forgotten.
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
    for how in ["cancel", "a client that is gone", "deadline"] {
        let mut gone_after = Vec::new();
        for _ in 0..5 {
            let waiter = lock_request(&direct, "lock").await;
            let begun = Instant::now();
            match how {
                "deadline" => {
                    let waiting = through.unary(LOCK, waiter.as_ref(), Some("400m"));
                    let seen = wait_count(&direct, 2);
                    let (told, _) = tokio::join!(waiting, seen);
                    assert_eq!(told.code, Some(4), "{told:?}");
                    assert!(told.took >= Duration::from_millis(400), "{told:?}");
                    let over = begun + told.took;
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
        println!("{how}: the waiter's key is gone after {gone_after:?}");
        // The machine may be busy now and then, not every time.
        assert!(
            gone_after[2] < Duration::from_millis(100),
            "{how}: {gone_after:?}"
        );
    }
}

/// A request for a lock under a lease of its own.
async fn lock_request(lane: &H2Connection, name: &str) -> Msg {
    let lease = lane
        .unary(GRANT, Msg::new().int(1, 600).as_ref(), None)
        .await;
    assert!(lease.ok(), "{lease:?}");
    Msg::new()
        .bytes(1, name)
        .int(2, pb::int(&lease.message, &[2]))
}

/// Waits until so many have the lock or wait for it.
async fn wait_count(lane: &H2Connection, wanted: i64) {
    let all = Msg::new().bytes(1, "lock/").bytes(2, "lock0").int(9, 1);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let told = lane.unary(RANGE, all.as_ref(), None).await;
        let count = pb::int(&told.message, &[4]);
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
