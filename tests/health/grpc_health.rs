//! `grpc.health.v1` on the client port, served by the proxy: compared with etcd's own responses,
//! with and without a running etcd, and while the proxy stops.

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

pub(crate) const SERVING: &[u8] = b"\x08\x01";
pub(crate) const NOT_SERVING: &[u8] = b"\x08\x02";
const SERVICE_UNKNOWN: &[u8] = b"\x08\x03";

fn request(service: &str) -> Msg {
    match service {
        "" => Msg::new(),
        _ => Msg::new().bytes(1, service),
    }
}

pub(crate) async fn watch(client: &Client, service: &str) -> Call {
    let mut call = client.call(WATCH, &[]).await;
    call.send(request(service)).await;
    call.half_close();
    call
}

pub(crate) async fn next(call: &mut Call, limit: Duration) -> Option<Bytes> {
    tokio::time::timeout(limit, call.next())
        .await
        .expect("a message in time")
}

pub(crate) const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_watch_match_etcd_for_names_it_knows() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let through = Client::connect(proxy.address()).await;
        for service in ["", "no.such.Service", "etcd", "grpc.health.v1.Health"] {
            let mut replies = Vec::new();
            for client in [&direct, &through] {
                replies.push(client.unary(CHECK, request(service), &[]).await);
            }
            assert_eq!(replies[0], replies[1], "{version} {service:?}");
            for client in [&direct, &through] {
                let mut watch = watch(client, service).await;
                let want = match service {
                    "" => SERVING,
                    _ => SERVICE_UNKNOWN,
                };
                assert_eq!(
                    next(&mut watch, SOON).await.unwrap(),
                    want,
                    "{version} {service}"
                );
            }
        }
        // etcd knows only the empty name. The proxy reports its overall health for each etcd
        // service.
        for service in [
            "etcdserverpb.KV",
            "etcdserverpb.Lease",
            "v3lockpb.Lock",
            "etcd-edge",
        ] {
            let reply = direct.unary(CHECK, request(service), &[]).await;
            assert_eq!(reply.code(), Some(5), "{version} {service}");
            let reply = through.unary(CHECK, request(service), &[]).await;
            assert_eq!(reply.only(), SERVING);
        }
        // Calls that bypass sharing are forwarded to etcd.
        let bypass = [("etcd-edge-bypass", "1")];
        let reply = through.unary(CHECK, request("etcd-edge"), &bypass).await;
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
async fn health_needs_no_credentials_in_a_namespace() {
    let cluster = Cluster::builder(NEWEST).auth().start();
    let proxy = Proxy::start(&cluster, &["--namespace=app/"]);
    let client = Client::connect(proxy.address()).await;
    assert_eq!(client.unary(CHECK, request(""), &[]).await.only(), SERVING);
    let mut watch = watch(&client, "").await;
    assert_eq!(next(&mut watch, SOON).await.unwrap(), SERVING);
}

/// Checks the metrics and the access log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_health_watches_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("calls.log");
    let access_log = format!("--access-log={}", log.display());
    // The service `etcd-edge` is the process itself, so no etcd is needed.
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1", &access_log]);
    let client = Client::connect(proxy.address()).await;
    let mut watch = watch(&client, "etcd-edge").await;
    assert_eq!(next(&mut watch, SOON).await.unwrap(), SERVING);
    for direction in ["received", "sent"] {
        let name = format!(
            "grpc_server_msg_{direction}_total{{grpc_method=\"Watch\",\
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
async fn health_watches_report_outages_and_the_end_of_the_proxy() {
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
    assert_eq!(next(&mut unknown, SOON).await.unwrap(), SERVICE_UNKNOWN);
    for watch in watches.iter_mut().chain(&mut processes) {
        assert_eq!(next(watch, SOON).await.unwrap(), SERVING);
    }
    let client = Client::connect(proxy.address()).await;
    cluster.kill(0);
    let begun = Instant::now();
    for watch in &mut watches {
        assert_eq!(next(watch, SOON).await.unwrap(), NOT_SERVING);
    }
    println!("outage reported after {:?}", begun.elapsed());
    let reply = client.unary(CHECK, request(""), &[]).await;
    assert_eq!(reply.only(), NOT_SERVING);
    let reply = client.unary(CHECK, request("etcd-edge"), &[]).await;
    assert_eq!(reply.only(), SERVING);
    cluster.restart(0);
    cluster.wait_healthy(0);
    let begun = Instant::now();
    for watch in &mut watches {
        assert_eq!(next(watch, SOON).await.unwrap(), SERVING);
    }
    println!("recovery reported after {:?}", begun.elapsed());
    // The state of the process did not change, so its next message is about the end.
    proxy.process.signal("TERM");
    for watch in watches.iter_mut().chain(&mut processes) {
        assert_eq!(next(watch, SOON).await.unwrap(), NOT_SERVING);
        assert_eq!(next(watch, SOON).await, None);
    }
    assert_eq!(next(&mut unknown, SOON).await, None);
    for watch in watches.into_iter().chain(processes).chain([unknown]) {
        assert_eq!(watch.finish().await.code(), Some(14));
    }
    assert!(proxy.process.wait(SOON).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_health_watches_share_one_probe_a_second() {
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
        assert_eq!(next(watch, SOON).await.unwrap(), SERVING);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (sent, took) = (ranges() - before, begun.elapsed());
    println!("{WATCHES} watches: {sent} ranges in {took:?}");
    // New watches may cause a read at most every 250 ms; later there is one each second.
    assert!(
        sent <= (took.as_secs_f64() - 1.5) * 4.0 + 5.0,
        "{sent} in {took:?}"
    );
    drop(watches);
    drop(clients);
    // Time for the read in progress and the last periodic one.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let before = ranges();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(ranges() - before, 0.0, "reads without any watch");
}
