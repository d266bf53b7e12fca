//! Floods of frames that cost the proxy more than their sender: the connection ends with
//! ENHANCE_YOUR_CALM, and other connections are not affected.

use std::time::{Duration, Instant};

use etcd_edge::limits;

use crate::support::load::H2Connection;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{metric, wait_metric};
use crate::support::raw_h2_client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, RawClient,
    SETTINGS, WINDOW_UPDATE, grpc_head,
};
use crate::support::scripted_etcd::{ScriptedEtcd, frame};
use crate::{CALM, PUT, UNKNOWN, scene};

/// Responds to every Put at once and leaves other calls open.
fn respond_all(mut etcd: ScriptedEtcd) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(mut call) = etcd.next_within(Duration::from_secs(60)).await {
            match call.path() {
                PUT => call.respond("y"),
                _ => open.push(call),
            }
        }
    })
}

/// Sends a flood until the connection ends. Another client makes calls at the same time.
async fn flood(what: &str, proxy: &Proxy, mut flooder: RawClient, burst: &[u8]) {
    let address = proxy.address().to_owned();
    let neighbour = tokio::spawn(async move {
        let connection = H2Connection::connect(&address).await.unwrap();
        let mut slowest = Duration::ZERO;
        let until = Instant::now() + Duration::from_secs(2);
        let mut calls = 0;
        while Instant::now() < until {
            let result = connection.unary(PUT, b"x", Some("10S")).await;
            assert!(result.ok(), "{result:?}");
            slowest = slowest.max(result.took);
            calls += 1;
        }
        (calls, slowest)
    });
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(20) && flooder.send(burst).await {
        sent += burst.len();
        if flooder.received().closed {
            break;
        }
    }
    let seen = flooder
        .wait(Duration::from_secs(10), what, |seen| seen.closed)
        .await;
    let (calls, slowest) = neighbour.await.unwrap();
    println!(
        "{what}: ended after {sent} bytes and {:?} with {:?}; neighbour: {calls} calls, slowest {slowest:?}",
        begun.elapsed(),
        (seen.go_away, &seen.debug_data)
    );
    assert_eq!(seen.go_away, Some(CALM), "{what}: {seen:?}");
    assert!(
        slowest < Duration::from_secs(2),
        "{what}: a call took {slowest:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flood_of_control_frames_ends_the_connection() {
    let (etcd, mut proxy, _client) = scene(&[]).await;
    let etcd = respond_all(etcd);
    let cases: [(&str, Vec<u8>); 6] = [
        ("PING", frame(PING, 0, 0, &[7; 8]).to_vec()),
        (
            "SETTINGS",
            frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).to_vec(),
        ),
        ("SETTINGS ACK or none", frame(SETTINGS, 0, 0, &[]).to_vec()),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]).to_vec()),
        (
            "WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).to_vec(),
        ),
        ("an unknown frame", frame(0x77, 0, 0, &[1; 4]).to_vec()),
    ];
    for (what, one) in cases {
        let flooder = RawClient::connect(proxy.address(), &[]).await;
        flood(what, &proxy, flooder, &one.repeat(500)).await;
    }
    let hits = r#"etcd_edge_limit_hits_total{limit="control_frames"}"#;
    assert!(metric(proxy.address(), hits) >= 5.0);
    let line = proxy.process.wait_line(Duration::from_secs(20), |line| {
        let flooding = line.contains("client connection closed: flood limit exceeded");
        flooding.then(|| line.to_owned())
    });
    let line = line.expect("a log line");
    assert!(line.contains(r#""client_address":"127.0.0.1:"#), "{line}");
    etcd.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flood_of_empty_frames_ends_the_connection() {
    let (etcd, proxy, _client) = scene(&[]).await;
    let etcd = respond_all(etcd);
    let mut flooder = RawClient::connect(proxy.address(), &[]).await;
    let stream = flooder.stream();
    let head = frame(HEADERS, END_HEADERS, stream, &grpc_head(UNKNOWN));
    flooder.send(&head).await;
    flood(
        "empty DATA",
        &proxy,
        flooder,
        &frame(DATA, 0, stream, &[]).repeat(500),
    )
    .await;

    let mut flooder = RawClient::connect(proxy.address(), &[]).await;
    let stream = flooder.stream();
    flooder
        .send(&frame(HEADERS, 0, stream, &grpc_head(UNKNOWN)))
        .await;
    let empty = frame(CONTINUATION, 0, stream, &[]).repeat(500);
    flood("empty CONTINUATION", &proxy, flooder, &empty).await;
    etcd.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rapid_resets_end_the_connection() {
    let (etcd, proxy, _client) = scene(&[]).await;
    let etcd = respond_all(etcd);
    // Streams are cancelled at once, or when they are already forwarded to etcd.
    for pause in [0, 1] {
        let mut flooder = RawClient::connect(proxy.address(), &[]).await;
        let head = grpc_head(UNKNOWN);
        let mut next = Vec::new();
        let what = format!("rapid reset, {pause} ms between");
        let (begun, mut resets) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(30) && !flooder.received().closed {
            next.clear();
            let mut streams = Vec::new();
            for _ in 0..100 {
                let stream = flooder.stream();
                next.extend_from_slice(&frame(HEADERS, END_HEADERS, stream, &head));
                streams.push(stream);
            }
            if pause > 0 {
                flooder.send(&next).await;
                next.clear();
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            for stream in streams {
                next.extend_from_slice(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            if !flooder.send(&next).await {
                break;
            }
            resets += 100;
        }
        println!("{what}: {resets} streams in {:?}", begun.elapsed());
        // Beside other programs a debug build may be too slow for its own limit.
        let per_second = u64::from(limits::RESETS_PER_SECOND);
        let permitted = u64::from(limits::RESET_BURST) + per_second * begun.elapsed().as_secs();
        if !flooder.received().closed && resets <= permitted {
            println!("{what}: the machine is too slow for a flood");
            continue;
        }
        flood(&what, &proxy, flooder, &[]).await;
    }
    etcd.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flood_of_stream_errors_ends_the_connection() {
    // Each malformed frame causes a reset by the proxy (MadeYouReset).
    let (etcd, proxy, _client) = scene(&[]).await;
    let etcd = respond_all(etcd);
    let mut flooder = RawClient::connect(proxy.address(), &[]).await;
    let head = grpc_head(UNKNOWN);
    let mut burst = Vec::new();
    for _ in 0..2_000 {
        let stream = flooder.stream();
        burst.extend_from_slice(&frame(HEADERS, END_HEADERS, stream, &head));
        // A window above the maximum is a stream error.
        let update = frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
        burst.extend_from_slice(&update);
    }
    flooder.send(&burst).await;
    flood("made resets", &proxy, flooder, &[]).await;
    etcd.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn busy_client_is_not_a_flood() {
    // The test sends a hundred pings at once; a real client would wait for each response.
    let (etcd, proxy, _client) = scene(&["--grpc-keepalive-min-time=0"]).await;
    let etcd = respond_all(etcd);
    let mut busy = RawClient::connect(proxy.address(), &[]).await;
    // The client cancels 2,000 calls right after it opened them, and 3,000 open calls. It also
    // measures its bandwidth with each of 5,000 responses.
    let head = grpc_head(UNKNOWN);
    let mut burst = Vec::new();
    for _ in 0..2_000 {
        let stream = busy.stream();
        burst.extend_from_slice(&frame(HEADERS, END_HEADERS, stream, &head));
        burst.extend_from_slice(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    busy.send(&burst).await;
    burst.clear();
    let mut streams = Vec::new();
    for _ in 0..3_000 {
        let stream = busy.stream();
        burst.extend_from_slice(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
        streams.push(stream);
    }
    busy.send(&burst).await;
    // The first calls count too: the proxy counts a call before it notices the cancel.
    let started = "grpc_server_started_total";
    wait_metric(proxy.address(), started, Duration::from_secs(20), |calls| {
        calls >= 5_000.0
    });
    burst.clear();
    for stream in streams {
        burst.extend_from_slice(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    busy.send(&burst).await;
    for _ in 0..50 {
        burst.clear();
        for _ in 0..100 {
            let (_, frames) = busy.call(PUT, b"x");
            burst.extend_from_slice(&frames);
            burst.extend_from_slice(&frame(PING, 0, 0, &[1; 8]));
            burst.extend_from_slice(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 100]));
        }
        assert!(busy.send(&burst).await, "{:?}", busy.received());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = busy
        .wait(Duration::from_secs(20), "all responses", |seen| {
            seen.ended == 5_000
        })
        .await;
    assert_eq!((seen.go_away, seen.closed), (None, false), "{seen:?}");
    etcd.abort();
}
