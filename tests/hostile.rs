//! Clients that misbehave, and well-behaved ones that look like it: what one of them may cost is
//! bounded (S1), and nobody else pays for it (P2).

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

/// Nothing is left of any client's calls, and nothing panicked on the way.
fn assert_clean(proxy: &Proxy) {
    wait_metric(proxy.address(), "etcd_edge_open_calls", LIMIT, |calls| {
        calls == 0.0
    });
    assert!(!proxy.process.log().contains("panicked"));
}

/// Stream ids of a client, from the first.
fn ids(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[test]
fn an_event_for_many_watches_of_one_connection_reaches_all() {
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
    // What the created answers have taken of the connection's window.
    client.write(&h2_frames::window_update(0, 60_000));
    let value = "v".repeat(20_000);
    etcdctl_ok(&cluster.endpoint(0), &["put", "key", &value]);
    client.read_all(1500, value.len(), LIMIT);
    drop(client);
    assert_clean(&proxy);
}

#[test]
fn a_burst_of_calls_given_up_at_once_does_not_cost_the_connection() {
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
fn many_messages_refused_while_they_arrive_do_not_cost_the_connection() {
    let (_cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    client.wait(LIMIT, |frame| frame.kind == WINDOW_UPDATE);
    // The head of a message of 16 MiB, which is more than is taken, and its first bytes.
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
    // What was on its way when the refusal was sent.
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
fn bytes_that_come_one_by_one_are_kept_for_little_more_than_their_number() {
    let (_cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    client.assert_alive();
    reset_peak(&proxy.process);
    let rest = proxy.process.rss_kib();
    // Watches that are never created are not answered, so their bytes stay for a second chance.
    for id in ids(200) {
        client.write(&h2_frames::call(id, WATCH));
        client.write(&h2_frames::frame(DATA, 0, id, &[0, 0, 1, 0, 0]));
    }
    // Each byte arrives in a read buffer of its own, filled up by a frame of an unknown type.
    let filler = h2_frames::frame(0x77, 0, 0, &[0; 8000]);
    for _ in 0..30 {
        for id in ids(200) {
            client.write(&h2_frames::frame(DATA, 0, id, b"x"));
            client.write(&filler);
        }
    }
    client.assert_alive();
    let above = peak_kib(&proxy.process).saturating_sub(rest);
    println!("{above} KiB above a rest of {rest} KiB");
    assert!(above < 12 * 1024, "{above} KiB for 7,000 bytes");
    drop(client);
    assert_clean(&proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_write_is_whole_after_any_number_of_refusals() {
    let mut etcd = ScriptedEtcd::start(2).await;
    let proxy = Proxy::start_with(&[etcd.flag()]);
    let client = Client::connect(proxy.address()).await;
    let message = vec![7; 1_500_000];
    let mut sent = framed(&message);
    let reply = tokio::spawn(async move {
        let mut call = client.call(PUT, &[]).await;
        // Pieces that do not fit the window evenly: of one of them there is always a rest.
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
fn pages_cost_a_connection_no_more_than_a_few_at_once() {
    let (_cluster, proxy) = scene();
    // A client that reads no body at all.
    let mut client = Raw::connect(proxy.address(), &[(4, 0)]);
    for id in ids(500) {
        client.write(&h2_frames::request(id, "GET", "/metrics"));
    }
    let mut refused = 0;
    client.wait(LIMIT, |frame| {
        refused += u32::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
        refused == 500 - 8
    });
    // Those who ask on connections of their own do not notice.
    assert_eq!(http::get(proxy.address(), "/health").unwrap().status, 200);
    // Given up, they make room for others.
    for id in ids(500) {
        client.write(&h2_frames::cancel(id));
    }
    client.write(&h2_frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]));
    client.write(&h2_frames::request(1001, "GET", "/health"));
    let answer = client.wait(LIMIT, |frame| frame.stream == 1001);
    assert_eq!((answer.kind, answer.flags), (HEADERS, END_HEADERS));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let (_cluster, proxy) = scene();
    let mut client = Raw::connect(proxy.address(), &[]);
    client.write(&h2_frames::request(1, "HEAD", "/health"));
    let answer = client.wait(LIMIT, |frame| frame.stream == 1);
    assert_eq!(
        (answer.kind, answer.flags),
        (HEADERS, END_HEADERS | END_STREAM)
    );
}

#[test]
fn who_has_not_said_a_word_is_not_waited_for_at_the_end() {
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
    assert_eq!(status.code(), Some(0), "{}", proxy.process.log());
    assert!(proxy.process.log().contains("drained"));
    drop(begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_read_that_fails_is_asked_again_though_the_others_are_dead() {
    let mut etcd = ScriptedEtcd::start(1).await;
    let dead = format!("127.0.0.1:{}", ports::take());
    let proxy = Proxy::start_with(&[format!("{},{dead}", etcd.flag())]);
    let client = Client::connect(proxy.address()).await;
    let reply = tokio::spawn(async move { client.unary(RANGE, "key", &[]).await });
    let first = etcd.next().await;
    // Silent for long enough to be asked elsewhere, where nobody is.
    tokio::time::sleep(Duration::from_secs(3)).await;
    first.conn.close();
    let again = etcd.next_within(Duration::from_secs(5)).await;
    again.expect("asked again").respond("value");
    assert_eq!(reply.await.unwrap().only(), b"value");
    assert_clean(&proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_a_client_harm_nobody() {
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
    // etcd ends a connection on which it meets trailers, and with it everybody's calls.
    assert!(watch.next().await.is_some(), "the event of the put");
    let lost = r#"etcd_edge_endpoint_failures_total"#;
    assert_eq!(metric(proxy.address(), lost), 0.0);
    watch.cancel();
    drop(hostile);
    assert_clean(&proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_time_is_over_at_its_arrival_is_not_begun() {
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
async fn long_streams_up_to_etcds_limit_leave_room_for_calls() {
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
