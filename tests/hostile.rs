//! Misbehaving clients, and well-behaved ones that resemble them: the cost of each is bounded (S1),
//! and other clients are not affected (P2).

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use support::cluster::{Cluster, etcdctl_ok};
use support::grpc::Client;
use support::h2_frames::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, WINDOW_UPDATE,
};
use support::http;
use support::memory::{peak_kib, reset_peak};
use support::pb::Msg;
use support::ports;
use support::proxy::Proxy;
use support::proxy_output::{metric, wait_metric};
use support::release::NEWEST;
use support::scripted_etcd::{ScriptedEtcd, framed};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const LIMIT: Duration = Duration::from_secs(30);

fn scene() -> (Cluster, Proxy) {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url=", "--workers=1"]);
    (cluster, proxy)
}

/// Checks that no call is left open and that nothing panicked.
fn assert_clean(proxy: &Proxy) {
    wait_metric(proxy.address(), "etcd_edge_open_calls", LIMIT, |calls| {
        calls == 0.0
    });
    assert!(!proxy.process.log().contains("panicked"));
}

/// Returns the first stream ids of a client.
fn ids(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[test]
fn event_reaches_all_watches_of_one_connection() {
    let (cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    let create = Msg::new().msg(1, Msg::new().bytes(1, "key"));
    for id in ids(1500) {
        client.write(&h2_frames::call(id, WATCH));
        client.write(&h2_frames::frame(DATA, 0, id, &framed(create.as_ref())));
    }
    let mut created = 0;
    client.wait(LIMIT, |frame| {
        created += u32::from(frame.kind == DATA);
        created == 1500
    });
    // Returns the part of the connection's window that the `created` responses used.
    client.write(&h2_frames::window_update(0, 60_000));
    let value = "v".repeat(20_000);
    etcdctl_ok(&cluster.endpoint(0), &["put", "key", &value]);
    client.read_all(1500, value.len(), LIMIT);
    drop(client);
    assert_clean(&proxy);
}

#[test]
fn burst_of_cancelled_calls_keeps_the_connection() {
    let (_cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    let mut burst = Vec::new();
    let put = Msg::new().bytes(1, "k").bytes(2, "v");
    for id in ids(500) {
        burst.extend(h2_frames::call(id, PUT));
        burst.extend(h2_frames::frame(DATA, 0, id, &framed(put.as_ref())));
        burst.extend(h2_frames::cancel(id));
    }
    client.write(&burst);
    client.assert_alive();
    assert_clean(&proxy);
}

#[test]
fn refused_incomplete_messages_keep_the_connection() {
    let (_cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    client.wait(LIMIT, |frame| frame.kind == WINDOW_UPDATE);
    // The prefix of a message of 16 MiB, which is above the limit, and its first bytes.
    let begun = [0, 1, 0, 0, 0, 7, 7, 7];
    for id in ids(300) {
        client.write(&h2_frames::call(id, PUT));
        client.write(&h2_frames::frame(DATA, 0, id, &begun));
    }
    let mut refused = 0;
    client.wait(LIMIT, |frame| {
        refused += u32::from(frame.kind == HEADERS);
        refused == 300
    });
    // Data that was in flight when the refusal was sent.
    for id in ids(300).chain(ids(300)) {
        client.write(&h2_frames::frame(DATA, 0, id, &[7; 1000]));
    }
    client.assert_alive();
    assert_eq!(
        metric(
            proxy.address(),
            r#"etcd_edge_limit_hits_total{limit="send_bytes"}"#
        ),
        300.0
    );
    assert_clean(&proxy);
}

#[test]
fn single_bytes_use_little_memory() {
    let (_cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    client.assert_alive();
    reset_peak(&proxy.process);
    let idle = proxy.process.rss_kib();
    // An incomplete create gets no response, so the proxy buffers its bytes for a retry.
    for id in ids(200) {
        client.write(&h2_frames::call(id, WATCH));
        client.write(&h2_frames::frame(DATA, 0, id, &[0, 0, 1, 0, 0]));
    }
    // A frame of unknown type fills the read buffer, so each byte arrives in a new buffer.
    let filler = h2_frames::frame(0x77, 0, 0, &[0; 8000]);
    for _ in 0..30 {
        for id in ids(200) {
            client.write(&h2_frames::frame(DATA, 0, id, b"x"));
            client.write(&filler);
        }
    }
    client.assert_alive();
    let above = peak_kib(&proxy.process).saturating_sub(idle);
    println!("{above} KiB above an idle {idle} KiB");
    assert!(above < 12 * 1024, "{above} KiB for 7,000 bytes");
    drop(client);
    assert_clean(&proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_write_is_complete_after_many_refusals() {
    let mut etcd = ScriptedEtcd::start(2).await;
    let proxy = Proxy::start_with(&[etcd.flag()]);
    let client = Client::connect(proxy.address()).await;
    let message = vec![7; 1_500_000];
    let mut sent = framed(&message);
    let reply = tokio::spawn(async move {
        let mut call = client.call(PUT, &[]).await;
        // The pieces do not fit the window evenly, so a part of one is always left.
        while !sent.is_empty() {
            call.send_raw(sent.split_to(sent.len().min(15_000))).await;
        }
        call.half_close();
        call.finish().await
    });
    for attempt in 1..75 {
        let mut call = etcd.next().await;
        call.wait_bytes(attempt * 20_000).await;
        call.reset(h2::Reason::REFUSED_STREAM);
    }
    let mut call = etcd.next().await;
    assert!(call.body().await == framed(&message));
    call.respond("done");
    assert_eq!(reply.await.unwrap().only(), b"done");
    assert_clean(&proxy);
}

#[test]
fn page_requests_of_a_connection_are_limited() {
    let (_cluster, proxy) = scene();
    // A client that reads no response body.
    let mut client = Raw::connect(proxy.address(), &[(4, 0)]);
    for id in ids(500) {
        client.write(&h2_frames::request(id, "GET", "/metrics"));
    }
    let mut refused = 0;
    client.wait(LIMIT, |frame| {
        refused += u32::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
        refused == 500 - 8
    });
    // Other connections are not affected.
    assert_eq!(http::get(proxy.address(), "/health").unwrap().status, 200);
    // Cancelled requests free their places.
    for id in ids(500) {
        client.write(&h2_frames::cancel(id));
    }
    client.write(&h2_frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]));
    client.write(&h2_frames::request(1001, "GET", "/health"));
    let response = client.wait(LIMIT, |frame| frame.stream == 1001);
    assert_eq!((response.kind, response.flags), (HEADERS, END_HEADERS));
}

#[test]
fn response_to_head_has_no_body() {
    let (_cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    client.write(&h2_frames::request(1, "HEAD", "/health"));
    let response = client.wait(LIMIT, |frame| frame.stream == 1);
    assert_eq!(
        (response.kind, response.flags),
        (HEADERS, END_HEADERS | END_STREAM)
    );
}

#[test]
fn incomplete_connections_do_not_delay_the_shutdown() {
    let (_cluster, mut proxy) = scene();
    let begun = ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\n", "GET /hea"].map(|first| {
        let mut socket = TcpStream::connect(proxy.address()).unwrap();
        socket.write_all(first.as_bytes()).unwrap();
        socket
    });
    wait_metric(proxy.address(), "etcd_edge_connections", LIMIT, |open| {
        open >= 5.0
    });
    proxy.process.signal("TERM");
    let status = proxy.process.wait(Duration::from_secs(4));
    assert_eq!(status.code(), Some(0), "{}", proxy.process.tail());
    assert!(proxy.process.log().contains("drained"));
    drop(begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_read_is_retried_when_all_other_endpoints_are_dead() {
    let mut etcd = ScriptedEtcd::start(1).await;
    let dead = format!("127.0.0.1:{}", ports::take());
    let proxy = Proxy::start_with(&[format!("{},{dead}", etcd.flag())]);
    let client = Client::connect(proxy.address()).await;
    let reply = tokio::spawn(async move { client.unary(RANGE, "key", &[]).await });
    let first = etcd.next().await;
    // After 2 s of silence the read is also sent to the dead endpoint.
    tokio::time::sleep(Duration::from_secs(3)).await;
    first.conn.close();
    let again = etcd.next_within(Duration::from_secs(5)).await;
    again.expect("a retry").respond("value");
    assert_eq!(reply.await.unwrap().only(), b"value");
    assert_clean(&proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_trailers_affect_no_other_call() {
    let (_cluster, proxy) = scene();
    let other = Client::connect(proxy.address()).await;
    let mut watch = other.call(WATCH, &[]).await;
    let create = Msg::new().msg(1, Msg::new().bytes(1, "key"));
    watch.send(create).await;
    assert!(watch.next().await.is_some());
    let mut hostile = Raw::connect(proxy.address(), &[]);
    let put = Msg::new().bytes(1, "key").bytes(2, "value");
    for (id, path) in [(1, PUT), (3, RANGE), (5, "/future.Service/New"), (7, WATCH)] {
        hostile.write(&h2_frames::call(id, path));
        hostile.write(&h2_frames::frame(DATA, 0, id, &framed(put.as_ref())));
        hostile.write(&h2_frames::trailers(id, &[("x-late", "1")]));
        hostile.wait(LIMIT, |frame| {
            frame.stream == id && frame.flags & END_STREAM != 0
        });
    }
    // etcd closes a connection on which it receives trailers, which would end all calls on it.
    assert!(watch.next().await.is_some(), "the event of the put");
    let lost = r#"etcd_edge_endpoint_failures_total"#;
    assert_eq!(metric(proxy.address(), lost), 0.0);
    watch.cancel();
    drop(hostile);
    assert_clean(&proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_with_an_expired_deadline_is_not_sent() {
    let mut etcd = ScriptedEtcd::start(1).await;
    let proxy = Proxy::start_with(&[etcd.flag()]);
    let client = Client::connect(proxy.address()).await;
    for timeouts in [
        &[("grpc-timeout", "0n")][..],
        &[("grpc-timeout", "1H"), ("grpc-timeout", "0S")],
    ] {
        let reply = client.unary(PUT, "token", timeouts).await;
        assert_eq!(reply.code(), Some(4), "{reply:?}");
    }
    etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_leave_capacity_for_calls() {
    let cluster = Cluster::builder(NEWEST)
        .arg("--max-concurrent-streams=5")
        .start();
    let proxy = Proxy::start(&cluster, &["--advertise-client-url=", "--workers=1"]);
    let client = Client::connect(proxy.address()).await;
    let mut watches = Vec::new();
    for _ in 0..12 {
        let mut watch = client.call(WATCH, &[]).await;
        watch
            .send(Msg::new().msg(1, Msg::new().bytes(1, "key")))
            .await;
        assert!(watch.next().await.is_some());
        watches.push(watch);
    }
    let put = Msg::new().bytes(1, "key").bytes(2, "value");
    let reply = client.unary(PUT, put, &[("grpc-timeout", "5S")]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    for watch in &mut watches {
        assert!(watch.next().await.is_some(), "the event");
        watch.cancel();
    }
    assert_clean(&proxy);
}
