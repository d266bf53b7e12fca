//! Client pings: too many pings close the connection with gRPC's well-known debug data, allowed
//! pings never do, and dead clients are detected.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::metric;
use crate::support::raw_h2_client::{END_HEADERS, HEADERS, PING, RawClient, Received, grpc_head};
use crate::support::release::NEWEST;
use crate::support::scripted_etcd::frame;
use crate::{CALM, PUT, RANGE, UNKNOWN, scene};

const LIMIT: Duration = Duration::from_secs(10);
const ACK: u8 = 1;
const WHY: &str = "too_many_pings";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8]).to_vec()
}

/// Sends this many pings, each after the response to the previous one.
async fn send_pings(client: &mut RawClient, count: u64) {
    for _ in 0..count {
        let before = client.received().frames.get(&PING).copied().unwrap_or(0);
        client.send(&ping()).await;
        let answered =
            |seen: &Received| seen.frames.get(&PING).is_some_and(|n| *n > before) || seen.closed;
        client.wait(LIMIT, "the response to a ping", answered).await;
    }
}

/// Sends pings, each after the response to the previous one, until the connection is closed.
/// Returns the number of pings.
async fn pings_until_closed(client: &mut RawClient) -> u64 {
    for count in 1..=10 {
        send_pings(client, 1).await;
        // The response to the last ping may precede the GOAWAY.
        tokio::time::sleep(Duration::from_millis(60)).await;
        if client.received().go_away.is_some() {
            let seen = client.wait(LIMIT, "the end", |seen| seen.closed).await;
            assert_eq!((seen.go_away, &seen.debug_data[..]), (Some(CALM), WHY));
            return count;
        }
    }
    panic!("open after ten pings: {:?}", client.received());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_pings_end_the_connection() {
    let (mut etcd, proxy, client) = scene(&["--grpc-keepalive-min-time=300ms"]).await;
    // Without an open call.
    let mut idle = RawClient::connect(proxy.address(), &[]).await;
    assert_eq!(pings_until_closed(&mut idle).await, 4);
    // With an open call, which then ends with an unknown outcome.
    let mut busy = RawClient::connect(proxy.address(), &[]).await;
    let (_, frames) = busy.call(UNKNOWN, b"x");
    busy.send(&frames).await;
    let call = etcd.next().await;
    // A delay of a busy machine may allow more pings.
    assert!((4..=6).contains(&pings_until_closed(&mut busy).await));
    drop(call);
    // At the allowed interval with an open call, any number of pings is accepted.
    let mut steady = RawClient::connect(proxy.address(), &[]).await;
    let (_, frames) = steady.call(UNKNOWN, b"x");
    steady.send(&frames).await;
    let mut call = etcd.next().await;
    for _ in 0..6 {
        send_pings(&mut steady, 1).await;
        tokio::time::sleep(Duration::from_millis(301)).await;
    }
    assert!(!steady.received().closed);
    // After the call the same interval is too short. The first ping after a response does not
    // count.
    call.respond("y");
    steady
        .wait(LIMIT, "a response", |seen| seen.ended == 1)
        .await;
    for _ in 0..3 {
        send_pings(&mut steady, 1).await;
        tokio::time::sleep(Duration::from_millis(301)).await;
    }
    assert_eq!(pings_until_closed(&mut steady).await, 1);
    assert_eq!(
        metric(
            proxy.address(),
            "etcd_edge_limit_hits_total{limit=\"pings\"}"
        ),
        3.0
    );
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_limits_match_the_go_proxy() {
    let cluster = Cluster::start(NEWEST, 1);
    let flags = ["--advertise-client-url=", "--grpc-keepalive-min-time=10s"];
    let (ours, gos) = (
        Proxy::start(&cluster, &flags),
        Proxy::start_go(&cluster, &flags),
    );
    let mut counts = Vec::new();
    for proxy in [&ours, &gos] {
        // An idle client, one with an open watch without events, and one after a response.
        let mut idle = RawClient::connect(proxy.address(), &[]).await;
        let mut watching = RawClient::connect(proxy.address(), &[]).await;
        let stream = watching.stream();
        let head = frame(HEADERS, END_HEADERS, stream, &grpc_head(WATCH));
        watching.send(&head).await;
        let mut answered = RawClient::connect(proxy.address(), &[]).await;
        for n in 1..=6 {
            let (_, frames) = answered.call(RANGE, b"\x0a\x01a");
            answered.send(&frames).await;
            answered
                .wait(LIMIT, "a response", |seen| seen.ended == n)
                .await;
            send_pings(&mut answered, 1).await;
        }
        counts.push([
            pings_until_closed(&mut idle).await,
            pings_until_closed(&mut watching).await,
            // The ping after the last response did not count.
            pings_until_closed(&mut answered).await,
        ]);
    }
    assert_eq!(counts[0], counts[1], "etcd-edge and the Go proxy");
    assert_eq!(counts[0], [4, 4, 3]);
    // Only 0 differs: the Go proxy uses gRPC's default, and etcd-edge allows any number of pings.
    let zero = Proxy::start_go(&cluster, &[flags[0], "--grpc-keepalive-min-time=0"]);
    let mut client = RawClient::connect(zero.address(), &[]).await;
    assert_eq!(pings_until_closed(&mut client).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_reset_ping_strikes_and_zero_disables_the_limit() {
    let (mut etcd, proxy, _client) = scene(&[]).await;
    // Clients that probe their bandwidth send a ping with every response.
    let mut prober = RawClient::connect(proxy.address(), &[]).await;
    for n in 1..=20 {
        let (_, frames) = prober.call(PUT, b"x");
        prober.send(&frames).await;
        etcd.next().await.respond("y");
        prober
            .wait(LIMIT, "a response", |seen| seen.ended == n)
            .await;
        send_pings(&mut prober, 1).await;
    }
    assert!(!prober.received().closed);
    let (_etcd, careless, _client) = scene(&["--grpc-keepalive-min-time=0"]).await;
    let mut client = RawClient::connect(careless.address(), &[]).await;
    send_pings(&mut client, 20).await;
    assert!(!client.received().closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_client_is_detected_and_a_live_one_stays() {
    let flags = [
        "--grpc-keepalive-interval=1s",
        "--grpc-keepalive-timeout=500ms",
    ];
    let (mut etcd, proxy, _client) = scene(&flags).await;
    let (_, patient, _) =
        scene(&["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=0"]).await;
    let begun = Instant::now();
    // This client answers no ping. Its call is cancelled with the connection.
    let mut dead = RawClient::connect(proxy.address(), &[]).await;
    let (_, frames) = dead.call(UNKNOWN, b"x");
    dead.send(&frames).await;
    let mut call = etcd.next().await;
    let mut silent = RawClient::connect(patient.address(), &[]).await;
    let mut answering = RawClient::connect(proxy.address(), &[]).await;
    let answers = tokio::spawn(async move {
        for count in 1..=2 {
            answering
                .wait(LIMIT, "a ping", |seen| {
                    seen.frames.get(&PING) == Some(&count)
                })
                .await;
            // All pings of the h2 crate have the same payload.
            let payload = [0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4];
            answering.send(&frame(PING, ACK, 0, &payload)).await;
        }
        answering.received().closed
    });
    let seen = dead.wait(LIMIT, "the end", |seen| seen.closed).await;
    let lived = begun.elapsed();
    assert_eq!(seen.frames.get(&PING), Some(&1), "{seen:?}");
    assert!(
        lived >= Duration::from_millis(1500),
        "closed after {lived:?}"
    );
    call.cancelled().await;
    assert!(!answers.await.unwrap(), "a client that answers was closed");
    let seen = silent.received();
    assert_eq!((seen.frames.get(&PING), seen.closed), (Some(&1), false));
    silent.send(&ping()).await;
}
