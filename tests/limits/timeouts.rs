//! Timeouts for slow clients: handshakes, incomplete requests, unread responses.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::grpc::Client;
use crate::support::load::H2Connection;
use crate::support::raw_h2_client::PREFACE;
use crate::support::scripted_etcd::framed;
use crate::support::tls::Tls;
use crate::{PUT, RANGE, scene, serves};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshake_times_out_after_ten_seconds() {
    let tls = Tls::generate();
    let cert = format!("--cert-file={}", tls.server.cert.display());
    let key = format!("--key-file={}", tls.server.key.display());
    let (mut etcd, plain, client) = scene(&[]).await;
    let secure_flags = ["--endpoints=127.0.0.1:1", &cert, &key];
    let secure = crate::support::proxy::Proxy::start_with(&secure_flags);
    let cases: [(&str, &str, &[u8]); 7] = [
        ("nothing", plain.address(), b""),
        ("half a preface", plain.address(), &PREFACE[..8]),
        ("most of a preface", plain.address(), &PREFACE[..20]),
        (
            "half an HTTP/1.1 head",
            plain.address(),
            b"GET /health HTTP/1.1\r\nHost:",
        ),
        ("nothing under TLS", secure.address(), b""),
        (
            "half a hello",
            secure.address(),
            b"\x16\x03\x01\x02\x00\x01\x00",
        ),
        ("plain text to TLS", secure.address(), b"GET / HT"),
    ];
    let mut waiting = Vec::new();
    for (what, address, bytes) in cases {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        waiting.push((
            what,
            tokio::spawn(async move {
                let begun = Instant::now();
                let mut all = Vec::new();
                let read = stream.read_to_end(&mut all);
                let closed = tokio::time::timeout(Duration::from_secs(25), read).await;
                (closed.is_ok(), begun.elapsed())
            }),
        ));
    }
    serves(&mut etcd, &client).await;
    for (what, each) in waiting {
        let (closed, after) = each.await.unwrap();
        println!("{what}: closed after {after:?}");
        assert!(closed, "{what}: still open");
        if what != "plain text to TLS" {
            assert!(
                after >= Duration::from_secs(8),
                "{what}: closed after {after:?}"
            );
        }
        assert!(after < Duration::from_secs(18), "{what}: {after:?}");
    }
    serves(&mut etcd, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trickled_bytes_do_not_extend_a_handshake() {
    let (_etcd, proxy, _client) = scene(&[]).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let begun = Instant::now();
    for byte in b"GET /health HTTP/1.1\r\nX-Header: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(17), "open for {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_unary_request_times_out_after_a_minute() {
    let (mut etcd, _proxy, client) = scene(&[]).await;
    let mut slow = Vec::new();
    for path in [RANGE, PUT, "/etcdserverpb.KV/RangeStream"] {
        let mut call = client.call(path, &[]).await;
        call.send_raw(framed(b"message").slice(..7)).await;
        slow.push((path, call));
    }
    // Two calls are already forwarded to etcd. A read is forwarded only when it is complete.
    let _under_way = [etcd.next().await, etcd.next().await];
    let minute = Duration::from_secs(if is_long() { 62 } else { 2 });
    tokio::time::sleep(minute).await;
    for (path, call) in slow {
        let ended = tokio::time::timeout(Duration::from_secs(2), call.finish_cut()).await;
        match (is_long(), path) {
            (true, RANGE | PUT) => {
                let (reply, _) = ended.expect("the call has ended");
                assert_eq!(reply.code(), Some(8), "{path}: {reply:?}");
                assert!(
                    reply.message().contains("not complete within 60s"),
                    "{reply:?}"
                );
            }
            _ => assert!(ended.is_err(), "{path} was ended early: {ended:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_unary_response_times_out_after_a_minute() {
    let (mut etcd, proxy, client) = scene(&[]).await;
    let connection = H2Connection::connect(proxy.address()).await.unwrap();
    let mut open = Vec::new();
    for path in [RANGE, PUT] {
        let (response, _send) = connection.open(path, b"x").await.unwrap();
        let mut call = etcd.next().await;
        call.headers(&[]);
        call.send_raw(framed(&vec![b'v'; 3_000_000]));
        open.push((path, response.await.unwrap().into_body(), call));
    }
    tokio::time::sleep(Duration::from_secs(if is_long() { 63 } else { 2 })).await;
    for (path, body, mut call) in open {
        let cancelled = tokio::time::timeout(Duration::from_millis(500), call.cancelled()).await;
        assert_eq!(
            cancelled.is_ok(),
            is_long(),
            "{path}: cancelled at etcd: {cancelled:?}"
        );
        drop(body);
    }
    let again = Client::connect(proxy.address()).await;
    serves(&mut etcd, &again).await;
    drop(client);
}

fn is_long() -> bool {
    std::env::var_os("ETCD_EDGE_LONG").is_some()
}
