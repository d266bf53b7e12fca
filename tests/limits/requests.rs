//! Limits on header lists, streams and connections.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::grpc::Client;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{log_entries, metric};
use crate::support::raw_h2_client::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, RawClient, grpc_head, headers,
};
use crate::support::scripted_etcd::frame;
use crate::{CALM, OK, PUT, RESOURCE_EXHAUSTED, UNKNOWN, scene, serves};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_header_list_is_refused() {
    let (mut etcd, _proxy, client) = scene(&[]).await;
    let large = "x".repeat(15_000);
    let metadata = [("x-large", &large[..])];
    let (reply, ()) = tokio::join!(client.unary(PUT, "x", &metadata), async {
        let mut call = etcd.next().await;
        assert_eq!(call.metadata("x-large")[0].len(), 15_000);
        call.respond("y");
    });
    assert_eq!(reply.code(), OK);
    for size in [16_500, 60_000] {
        let large = "x".repeat(size);
        let reply = client.unary(PUT, "x", &[("x-large", &large)]).await;
        assert_eq!(reply.http_status, 431, "{size}: {reply:?}");
        serves(&mut etcd, &client).await;
    }
    etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_list_with_many_fields_is_refused() {
    let (mut etcd, proxy, client) = scene(&[]).await;
    let many = |count: usize| vec![("a", "b"); count];
    let allowed = many(120);
    let (reply, ()) = tokio::join!(client.unary(PUT, "x", &allowed), async {
        let mut call = etcd.next().await;
        assert_eq!(call.metadata("a").len(), 120);
        call.respond("y");
    });
    assert_eq!(reply.code(), OK);
    let reply = client.unary(PUT, "x", &many(200)).await;
    assert_eq!(reply.code(), RESOURCE_EXHAUSTED, "{reply:?}");
    assert!(
        reply.message().contains("header fields"),
        "{}",
        reply.message()
    );
    let hits = r#"etcd_edge_limit_hits_total{limit="header_fields"}"#;
    assert_eq!(metric(proxy.address(), hits), 1.0);
    etcd.assert_no_more_calls().await;
    serves(&mut etcd, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_header_list_ends_the_connection() {
    let (mut etcd, proxy, client) = scene(&[]).await;
    let mut bomb = RawClient::connect(proxy.address(), &[]).await;
    let stream = bomb.stream();
    bomb.send(&frame(HEADERS, 0, stream, &grpc_head(PUT))).await;
    let more = frame(
        CONTINUATION,
        0,
        stream,
        &headers(&[("a", &"x".repeat(8_000))]),
    );
    for _ in 0..2_000 {
        if !bomb.send(&more).await {
            break;
        }
    }
    let seen = bomb
        .wait(Duration::from_secs(10), "GOAWAY", |seen| seen.closed)
        .await;
    assert!(matches!(seen.go_away, Some(CALM | 1)), "{seen:?}");
    serves(&mut etcd, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_list_that_expands_is_refused() {
    // One large entry in the dynamic table, then one byte per repetition.
    let (mut etcd, proxy, client) = scene(&[]).await;
    let mut bomb = RawClient::connect(proxy.address(), &[]).await;
    let mut block = grpc_head(PUT);
    // Literal with incremental indexing: name "a", a value of 3,900 bytes.
    block.extend([0x40, 1, b'a', 0x7f, 0xbd, 0x1d]);
    block.extend([b'x'; 3_900]);
    block.extend([0x80 | 62; 4_000]);
    let stream = bomb.stream();
    bomb.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block))
        .await;
    let answered = |seen: &crate::support::raw_h2_client::Received| {
        seen.closed || seen.ended > 0 || !seen.resets.is_empty()
    };
    bomb.wait(Duration::from_secs(10), "a response", answered)
        .await;
    etcd.assert_no_more_calls().await;
    serves(&mut etcd, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_specific_headers_are_malformed() {
    let (mut etcd, proxy, client) = scene(&[]).await;
    for (name, value) in [
        ("connection", "keep-alive"),
        ("keep-alive", "5"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("Upper-Case", "x"),
    ] {
        let mut raw = RawClient::connect(proxy.address(), &[]).await;
        let stream = raw.stream();
        let block = [grpc_head(PUT), headers(&[(name, value)])].concat();
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block))
            .await;
        let refused = |seen: &crate::support::raw_h2_client::Received| {
            seen.resets.contains_key(&stream) || seen.closed
        };
        let seen = raw.wait(Duration::from_secs(10), name, refused).await;
        let code = seen.resets.get(&stream).copied().or(seen.go_away);
        assert_eq!(code, Some(1), "{name}: PROTOCOL_ERROR: {seen:?}");
    }
    etcd.assert_no_more_calls().await;
    serves(&mut etcd, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_above_the_limit_are_refused() {
    let (mut etcd, proxy, client) = scene(&["--max-concurrent-streams=10"]).await;
    let mut greedy = RawClient::connect(proxy.address(), &[]).await;
    let settings = greedy
        .wait(Duration::from_secs(10), "settings", |seen| {
            !seen.settings.is_empty()
        })
        .await
        .settings;
    assert_eq!(
        settings.get(&3),
        Some(&10),
        "SETTINGS_MAX_CONCURRENT_STREAMS"
    );
    let mut calls = Vec::new();
    for _ in 0..10 {
        let (_, frames) = greedy.call(UNKNOWN, b"x");
        greedy.send(&frames).await;
        calls.push(etcd.next().await);
    }
    for _ in 0..20 {
        let (stream, frames) = greedy.call(UNKNOWN, b"x");
        greedy.send(&frames).await;
        // REFUSED_STREAM allows the client to retry.
        let refused =
            |seen: &crate::support::raw_h2_client::Received| seen.resets.get(&stream) == Some(&7);
        greedy
            .wait(Duration::from_secs(10), "a refusal", refused)
            .await;
    }
    assert!(etcd.next_within(Duration::from_millis(300)).await.is_none());
    // The limit is per connection.
    serves(&mut etcd, &client).await;
    calls.pop().unwrap().respond("done");
    greedy
        .wait(Duration::from_secs(10), "a response", |seen| {
            seen.ended == 1
        })
        .await;
    let (_, frames) = greedy.call(UNKNOWN, b"x");
    greedy.send(&frames).await;
    etcd.next().await.respond("done");
    greedy
        .wait(Duration::from_secs(10), "a response", |seen| {
            seen.ended == 2
        })
        .await;
}

/// Adjusted values are logged at start, and debug lines only with `--debug`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adjusted_values_are_logged() {
    let nowhere = "--endpoints=127.0.0.1:1";
    let many = "--max-concurrent-streams=100000";
    let often = "--grpc-keepalive-interval=1ms";
    let proxy = Proxy::start_with(&[nowhere, many, often, "--debug"]);
    let plain = Proxy::start_with(&[nowhere]);
    for (proxy, count) in [(&proxy, 1), (&plain, 0)] {
        let client = RawClient::connect(proxy.address(), &[]).await;
        let settings = |seen: &crate::support::raw_h2_client::Received| !seen.settings.is_empty();
        let seen = client
            .wait(Duration::from_secs(10), "settings", settings)
            .await;
        assert_eq!(seen.settings.get(&3), Some(&16_384));
        for message in [
            "--max-concurrent-streams is capped",
            "--grpc-keepalive-interval is raised",
        ] {
            assert_eq!(log_entries(proxy, message).len(), count, "{message}");
        }
    }
    let capped = &log_entries(&proxy, "--max-concurrent-streams is capped")[0];
    assert_eq!(
        (&capped["requested"], &capped["maximum"]),
        (&100_000.into(), &16_384.into())
    );
    for (mut proxy, debugs) in [(proxy, true), (plain, false)] {
        let socket = TcpStream::connect(proxy.address()).await.unwrap();
        drop(socket);
        let gone = "client connection closed before its first request";
        if debugs {
            let found = |line: &str| line.contains(gone).then_some(());
            proxy
                .process
                .wait_line(Duration::from_secs(10), found)
                .unwrap();
            assert_eq!(log_entries(&proxy, gone)[0]["level"], "debug");
        }
        proxy.process.signal("TERM");
        proxy.process.wait(Duration::from_secs(10));
        assert_eq!(log_entries(&proxy, gone).is_empty(), !debugs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_the_limit_are_closed() {
    // The process has 200 descriptors, of which some are reserved.
    let (mut etcd, _, _) = scene(&[]).await;
    let flags = format!("start --listen-addr=127.0.0.1:0 {}", etcd.flag());
    let script = format!(
        "ulimit -n 200; exec '{}' {flags}",
        env!("CARGO_BIN_EXE_etcd-edge")
    );
    let mut command = std::process::Command::new("sh");
    let mut proxy = Process::spawn("etcd-edge", command.args(["-c", &script]));
    let ready = proxy.wait_line(Duration::from_secs(20), |line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        entry["address"].as_str().map(str::to_owned)
    });
    let address = ready.unwrap();
    let client = Client::connect(&address).await;
    serves(&mut etcd, &client).await;
    let mut open = Vec::new();
    let mut closed = 0;
    for _ in 0..250 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let mut byte = [0];
        let read = stream.read(&mut byte);
        match tokio::time::timeout(Duration::from_millis(20), read).await {
            Ok(_) => closed += 1,
            Err(_) => open.push(stream),
        }
    }
    println!("{} stayed open, {closed} were closed", open.len());
    assert!(
        (100..=140).contains(&open.len()),
        "{} stayed open",
        open.len()
    );
    serves(&mut etcd, &client).await;
    // Closed connections free their places.
    drop(open);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let again = Client::connect(&address).await;
    serves(&mut etcd, &again).await;
    assert_eq!(
        metric(&address, "etcd_edge_connections_refused_total"),
        f64::from(closed)
    );
}
