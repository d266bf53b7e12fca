//! Clients that ping too often are sent away with the words that gRPC clients know, those that keep to
//! the rule never are, and those that are gone are noticed.

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

/// So many pings, each sent once the one before was answered.
async fn pings(client: &mut RawClient, count: u64) {
    for _ in 0..count {
        let before = client.received().frames.get(&PING).copied().unwrap_or(0);
        client.send(&ping()).await;
        let answered =
            |seen: &Received| seen.frames.get(&PING).is_some_and(|n| *n > before) || seen.closed;
        client.wait(LIMIT, "the answer to a ping", answered).await;
    }
}

/// Sends pings, each once the one before was answered, until it is sent away; how many it took.
async fn sent_away(client: &mut RawClient) -> u64 {
    for count in 1..=10 {
        pings(client, 1).await;
        // The answer to the last ping may come before the goodbye.
        tokio::time::sleep(Duration::from_millis(60)).await;
        if client.received().go_away.is_some() {
            let seen = client.wait(LIMIT, "the end", |seen| seen.closed).await;
            assert_eq!((seen.go_away, &seen.debug_data[..]), (Some(CALM), WHY));
            return count;
        }
    }
    panic!("ten pings are not too many: {:?}", client.received());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_without_a_call_or_too_soon_end_the_connection() {
    let (mut etcd, proxy, client) = scene(&["--grpc-keepalive-min-time=300ms"]).await;
    // Without a call.
    let mut idle = RawClient::connect(proxy.address(), &[]).await;
    assert_eq!(sent_away(&mut idle).await, 4);
    // With one, which is told so: it may have been done.
    let mut busy = RawClient::connect(proxy.address(), &[]).await;
    let (_, frames) = busy.call(UNKNOWN, b"x");
    busy.send(&frames).await;
    let call = etcd.next().await;
    // A pause of a busy machine may have one more pass.
    assert!((4..=6).contains(&sent_away(&mut busy).await));
    drop(call);
    // At the pace that is allowed, with a call open, and any number of times.
    let mut steady = RawClient::connect(proxy.address(), &[]).await;
    let (_, frames) = steady.call(UNKNOWN, b"x");
    steady.send(&frames).await;
    let mut call = etcd.next().await;
    for _ in 0..6 {
        pings(&mut steady, 1).await;
        tokio::time::sleep(Duration::from_millis(301)).await;
    }
    assert!(!steady.received().closed);
    // Once the call is over the same pace is too much: the first ping after its answer is forgiven.
    call.respond("y");
    steady
        .wait(LIMIT, "an answer", |seen| seen.ended == 1)
        .await;
    for _ in 0..3 {
        pings(&mut steady, 1).await;
        tokio::time::sleep(Duration::from_millis(301)).await;
    }
    assert_eq!(sent_away(&mut steady).await, 1);
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
async fn it_is_as_the_go_proxy_does() {
    let cluster = Cluster::start(NEWEST, 1);
    let flags = ["--advertise-client-url=", "--grpc-keepalive-min-time=10s"];
    let (ours, gos) = (
        Proxy::start(&cluster, &flags),
        Proxy::start_go(&cluster, &flags),
    );
    let mut told = Vec::new();
    for proxy in [&ours, &gos] {
        // Idle; with a watch open, of which nothing is told; and after an answer.
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
                .wait(LIMIT, "an answer", |seen| seen.ended == n)
                .await;
            pings(&mut answered, 1).await;
        }
        told.push([
            sent_away(&mut idle).await,
            sent_away(&mut watching).await,
            // The last one was forgiven.
            sent_away(&mut answered).await,
        ]);
    }
    assert_eq!(told[0], told[1], "etcd-edge and the Go proxy");
    assert_eq!(told[0], [4, 4, 3]);
    // But for 0, which there means gRPC's own default and here that anything goes.
    let zero = Proxy::start_go(&cluster, &[flags[0], "--grpc-keepalive-min-time=0"]);
    let mut client = RawClient::connect(zero.address(), &[]).await;
    assert_eq!(sent_away(&mut client).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_forgive_pings_and_zero_forgives_all() {
    let (mut etcd, proxy, _client) = scene(&[]).await;
    // A ping with every answer, as those have it that probe their bandwidth.
    let mut prober = RawClient::connect(proxy.address(), &[]).await;
    for n in 1..=20 {
        let (_, frames) = prober.call(PUT, b"x");
        prober.send(&frames).await;
        etcd.next().await.respond("y");
        prober
            .wait(LIMIT, "an answer", |seen| seen.ended == n)
            .await;
        pings(&mut prober, 1).await;
    }
    assert!(!prober.received().closed);
    let (_etcd, careless, _client) = scene(&["--grpc-keepalive-min-time=0"]).await;
    let mut client = RawClient::connect(careless.address(), &[]).await;
    pings(&mut client, 20).await;
    assert!(!client.received().closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_is_noticed_and_one_that_answers_is_not_lost() {
    let flags = [
        "--grpc-keepalive-interval=1s",
        "--grpc-keepalive-timeout=500ms",
    ];
    let (mut etcd, proxy, _client) = scene(&flags).await;
    let (_, patient, _) =
        scene(&["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=0"]).await;
    let begun = Instant::now();
    // It answers no ping. Its call ends with it.
    let mut gone = RawClient::connect(proxy.address(), &[]).await;
    let (_, frames) = gone.call(UNKNOWN, b"x");
    gone.send(&frames).await;
    let mut call = etcd.next().await;
    let mut silent = RawClient::connect(patient.address(), &[]).await;
    let mut answering = RawClient::connect(proxy.address(), &[]).await;
    let answers = tokio::spawn(async move {
        for asked in 1..=2 {
            answering
                .wait(LIMIT, "a ping", |seen| {
                    seen.frames.get(&PING) == Some(&asked)
                })
                .await;
            // The h2 crate's pings all carry the same bytes.
            let payload = [0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4];
            answering.send(&frame(PING, ACK, 0, &payload)).await;
        }
        answering.received().closed
    });
    let seen = gone.wait(LIMIT, "the end", |seen| seen.closed).await;
    let lived = begun.elapsed();
    assert_eq!(seen.frames.get(&PING), Some(&1), "{seen:?}");
    assert!(
        lived >= Duration::from_millis(1500),
        "closed after {lived:?}"
    );
    call.cancelled().await;
    assert!(!answers.await.unwrap(), "one that answers was closed");
    let seen = silent.received();
    assert_eq!((seen.frames.get(&PING), seen.closed), (Some(&1), false));
    silent.send(&ping()).await;
}
