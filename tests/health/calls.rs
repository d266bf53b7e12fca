//! `grpc.health.v1` on the client port, answered by the proxy: beside what etcd says itself, while etcd is
//! there, while it is not, and while the proxy ends.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::support::cluster::Cluster;
use crate::support::grpc::{Call, Client};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::wait_metric;
use crate::support::release::{NEWEST, versions};

pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/grpc.health.v1.Health/List";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

const SERVING: &[u8] = b"\x08\x01";
const NOT_SERVING: &[u8] = b"\x08\x02";
const SERVICE_UNKNOWN: &[u8] = b"\x08\x03";

fn of(service: &str) -> Msg {
    match service {
        "" => Msg::new(),
        _ => Msg::new().bytes(1, service),
    }
}

async fn watch(client: &Client, service: &str) -> Call {
    let mut call = client.call(WATCH, &[]).await;
    call.send(of(service)).await;
    call.half_close();
    call
}

async fn says(call: &mut Call, limit: Duration) -> Option<Bytes> {
    tokio::time::timeout(limit, call.next())
        .await
        .expect("a word in time")
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_watch_are_etcds_where_etcd_knows_the_name() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let through = Client::connect(proxy.address()).await;
        for service in ["", "no.such.Service", "etcd", "grpc.health.v1.Health"] {
            let mut told = Vec::new();
            for client in [&direct, &through] {
                told.push(client.unary(CHECK, of(service), &[]).await);
            }
            assert_eq!(told[0], told[1], "{version} {service:?}");
            for client in [&direct, &through] {
                let mut watch = watch(client, service).await;
                let want = match service {
                    "" => SERVING,
                    _ => SERVICE_UNKNOWN,
                };
                assert_eq!(
                    says(&mut watch, SOON).await.unwrap(),
                    want,
                    "{version} {service}"
                );
            }
        }
        // etcd has no names but the empty one; here each of its services has the health of the whole.
        for service in [
            "etcdserverpb.KV",
            "etcdserverpb.Lease",
            "v3lockpb.Lock",
            "etcd-edge",
        ] {
            let reply = direct.unary(CHECK, of(service), &[]).await;
            assert_eq!(reply.code(), Some(5), "{version} {service}");
            assert_eq!(through.unary(CHECK, of(service), &[]).await.only(), SERVING);
        }
        // Who shares nothing is etcd's to answer.
        let alone = [("etcd-edge-bypass", "1")];
        let reply = through.unary(CHECK, of("etcd-edge"), &alone).await;
        assert_eq!(reply.code(), Some(5), "{version}");
        let list = through.unary(LIST, Msg::new(), &[]).await;
        assert!(list.only().len() > 100, "{list:?}");
        for (sent, code) in [
            (Msg::new().bytes(1, b"\xff"), 3),
            (Msg::new().bytes(1, [b'x'; 5000]), 8),
        ] {
            let reply = through.unary(CHECK, sent, &[]).await;
            assert_eq!(reply.code(), Some(code), "{reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_open_in_a_namespace_and_to_nobody_in_particular() {
    let cluster = Cluster::builder(NEWEST).auth().start();
    let proxy = Proxy::start(&cluster, &["--namespace=app/"]);
    let client = Client::connect(proxy.address()).await;
    assert_eq!(client.unary(CHECK, of(""), &[]).await.only(), SERVING);
    let mut watch = watch(&client, "").await;
    assert_eq!(says(&mut watch, SOON).await.unwrap(), SERVING);
}

/// In the metrics and in the access log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_to_who_watches_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("calls.log");
    let access_log = format!("--access-log={}", log.display());
    // Whether the process is there is nothing to ask etcd for.
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1", &access_log]);
    let client = Client::connect(proxy.address()).await;
    let mut watch = watch(&client, "etcd-edge").await;
    assert_eq!(says(&mut watch, SOON).await.unwrap(), SERVING);
    for way in ["received", "sent"] {
        let name = format!(
            "grpc_server_msg_{way}_total{{grpc_method=\"Watch\",\
             grpc_service=\"grpc.health.v1.Health\",grpc_type=\"server_stream\"}}"
        );
        wait_metric(proxy.address(), &name, SOON, |n| n == 1.0);
    }
    watch.cancel();
    let until = Instant::now() + SOON;
    let line = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if let Some(line) = text.strip_suffix('\n') {
            break serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        assert!(Instant::now() < until, "no line");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    for (name, n) in [
        ("received_messages", 1),
        ("received_bytes", 11),
        ("sent_messages", 1),
        ("sent_bytes", 2),
    ] {
        assert_eq!(line[name], n, "{name} in {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_is_told_when_etcd_goes_and_comes_and_when_the_proxy_ends() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let mut proxy = Proxy::start(&cluster, &["--workers=2"]);
    let mut watches = Vec::new();
    let mut processes = Vec::new();
    for _ in 0..4 {
        let client = Client::connect(proxy.address()).await;
        for _ in 0..8 {
            watches.push(watch(&client, "").await);
        }
        processes.push(watch(&client, "etcd-edge").await);
    }
    let mut unknown = watch(&Client::connect(proxy.address()).await, "x.Y").await;
    assert_eq!(says(&mut unknown, SOON).await.unwrap(), SERVICE_UNKNOWN);
    for watch in watches.iter_mut().chain(&mut processes) {
        assert_eq!(says(watch, SOON).await.unwrap(), SERVING);
    }
    let client = Client::connect(proxy.address()).await;
    cluster.kill(0);
    let begun = Instant::now();
    for watch in &mut watches {
        assert_eq!(says(watch, SOON).await.unwrap(), NOT_SERVING);
    }
    println!("told that etcd is gone after {:?}", begun.elapsed());
    assert_eq!(client.unary(CHECK, of(""), &[]).await.only(), NOT_SERVING);
    assert_eq!(
        client.unary(CHECK, of("etcd-edge"), &[]).await.only(),
        SERVING
    );
    cluster.restart(0);
    cluster.wait_healthy(0);
    let begun = Instant::now();
    for watch in &mut watches {
        assert_eq!(says(watch, SOON).await.unwrap(), SERVING);
    }
    println!("told that etcd is back after {:?}", begun.elapsed());
    // The process was there all the while: its next word is of its end.
    proxy.process.signal("TERM");
    for watch in watches.iter_mut().chain(&mut processes) {
        assert_eq!(says(watch, SOON).await.unwrap(), NOT_SERVING);
        assert_eq!(says(watch, SOON).await, None);
    }
    assert_eq!(says(&mut unknown, SOON).await, None);
    for watch in watches.into_iter().chain(processes).chain([unknown]) {
        assert_eq!(watch.finish().await.code(), Some(14));
    }
    assert!(proxy.process.wait(SOON).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_that_watch_are_one_probe_a_second_and_none_when_they_are_gone() {
    const WATCHES: usize = 5_000;
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--workers=2"]);
    let ranges = || {
        let name =
            "grpc_server_started_total{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\"";
        cluster
            .metric(0, &format!("{name},grpc_type=\"unary\"}}"))
            .expect("etcd counts it")
    };
    let mut watches = Vec::new();
    let mut clients = Vec::new();
    let before = ranges();
    let begun = Instant::now();
    for _ in 0..4 {
        let client = Client::connect(proxy.address()).await;
        for _ in 0..WATCHES / 4 {
            watches.push(watch(&client, "").await);
        }
        clients.push(client);
    }
    for watch in &mut watches {
        assert_eq!(says(watch, SOON).await.unwrap(), SERVING);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (asked, took) = (ranges() - before, begun.elapsed());
    println!("{WATCHES} watches: {asked} ranges in {took:?}");
    // While they come each may ask, at most every 250 ms; then there is one a second.
    assert!(
        asked <= (took.as_secs_f64() - 1.5) * 4.0 + 5.0,
        "{asked} in {took:?}"
    );
    drop(watches);
    drop(clients);
    // The one under way, and the last look.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let before = ranges();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(ranges() - before, 0.0, "nobody asks any more");
}
