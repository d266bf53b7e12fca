//! Call logs: each call has one line in the log and in the access log, with its sizes. Keys appear
//! only at debug level, values never. Lines that cannot be written are dropped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::RANGE;
use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, Reply};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{log_entries, wait_metric};
use crate::support::release::NEWEST;
use crate::support::tls::Tls;

const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const UNKNOWN: &str = "/future.Service/New";
const LIMIT: Duration = Duration::from_secs(10);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Waits until a log has this many lines and returns them.
fn lines(path: &Path, count: usize) -> Vec<Value> {
    let until = Instant::now() + LIMIT;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count {
            let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
            return parsed.collect();
        }
        assert!(Instant::now() < until, "not {count} lines: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn key(key: &str) -> Msg {
    Msg::new().bytes(1, key)
}

/// Returns the message and byte counts of a line.
fn sizes(line: &Value) -> [u64; 4] {
    [
        "received_messages",
        "received_bytes",
        "sent_messages",
        "sent_bytes",
    ]
    .map(|name| {
        line[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {line}"))
    })
}

fn size(message: &Msg) -> u64 {
    message.as_ref().len() as u64
}

fn bytes(reply: &Reply) -> u64 {
    reply
        .messages
        .iter()
        .map(|message| message.len() as u64)
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_logged_once_with_its_sizes() {
    let cluster = Cluster::start(NEWEST, 1);
    let folder = tempfile::tempdir().unwrap();
    let (file, moved) = (
        folder.path().join("calls.log"),
        folder.path().join("calls.1"),
    );
    let access_log = format!("--access-log={}", file.display());
    let flags = [
        access_log.as_str(),
        "--enable-grpc-logging",
        "--cache-max-age=20s",
    ];
    let proxy = Proxy::start(&cluster, &flags);
    let client = Client::connect(proxy.address()).await;

    let put = key("secret-key").bytes(2, "secret-value");
    let traced = [("traceparent", &*format!("00-{TRACE}-b7ad6b7169203331-00"))];
    let mut expected = BTreeMap::new();
    let reply = client.unary(PUT, &put, &traced).await;
    expected.insert("put", [1, size(&put), 1, bytes(&reply)]);
    let read = key("secret-key").int(7, 1);
    for _ in 0..2 {
        let reply = client.unary(RANGE, &read, &[]).await;
        assert!(reply.only().len() > 20);
        expected.insert("read", [1, size(&read), 1, bytes(&reply)]);
    }
    // Too large to buffer; the response has many frames.
    let large = key("secret-large").bytes(2, vec![b'x'; 1 << 20]);
    let reply = client.unary(PUT, &large, &[]).await;
    expected.insert("large", [1, size(&large), 1, bytes(&reply)]);
    let reply = client.unary(RANGE, &key("secret-large"), &[]).await;
    expected.insert("whole", [1, 14, 1, bytes(&reply)]);
    let reply = client.unary(UNKNOWN, b"x", &[]).await;
    assert_eq!(reply.code(), Some(12));
    // The deadline has already expired: the client receives an error or a reset.
    client.unary(PUT, b"", &[("grpc-timeout", "0n")]).await;
    let mut watch = client.call(WATCH, &[]).await;
    let create = Msg::new().msg(1, key("secret-key"));
    watch.send(&create).await;
    let created = watch.next().await.unwrap().len();
    client.unary(PUT, &put, &[]).await;
    let event = watch.next().await.unwrap().len();
    watch.cancel();

    let logged = lines(&file, 9);
    let of = |method: &str| -> Vec<&Value> {
        logged
            .iter()
            .filter(|line| line["method"] == method)
            .collect()
    };
    let puts = of(PUT);
    assert_eq!(sizes(puts[0]), expected["put"]);
    assert_eq!(
        (&puts[0]["source"], &puts[0]["trace_id"]),
        (&"etcd".into(), &TRACE.into())
    );
    assert_eq!(
        puts[0]["endpoint"],
        format!("http://{}", cluster.endpoint(0))
    );
    assert_eq!(sizes(puts[1]), expected["large"]);
    assert_eq!(
        (&puts[2]["code"], &puts[2]["source"]),
        (&"DeadlineExceeded".into(), &"proxy".into())
    );
    let reads = of(RANGE);
    assert_eq!([sizes(reads[0]), sizes(reads[1])], [expected["read"]; 2]);
    assert_eq!(
        (&reads[0]["source"], &reads[1]["source"]),
        (&"etcd".into(), &"cache".into())
    );
    assert_eq!(sizes(reads[2]), expected["whole"]);
    // etcd may refuse an unknown method by its headers, before the message arrives.
    let unknown = of(UNKNOWN);
    assert_eq!(
        (&unknown[0]["code"], &sizes(unknown[0])[2..]),
        (&"Unimplemented".into(), &[0, 0][..])
    );
    let watched = of(WATCH);
    assert_eq!(
        (
            &watched[0]["source"],
            &watched[0]["code"],
            sizes(watched[0])
        ),
        (
            &"shared".into(),
            &"Canceled".into(),
            [1, size(&create), 2, (created + event) as u64]
        )
    );
    for line in &logged {
        let address = line["client_address"].as_str().unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        assert!(line["duration_ms"].as_f64().unwrap() >= 0.0, "{line}");
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    // The proxy's own log has the same lines.
    let until = Instant::now() + LIMIT;
    let own_lines = loop {
        let own_lines = log_entries(&proxy, "finished call");
        if own_lines.len() == logged.len() {
            break own_lines;
        }
        assert!(Instant::now() < until, "{own_lines:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    for (own, line) in own_lines.iter().zip(&logged) {
        for name in [
            "method",
            "client_address",
            "code",
            "source",
            "endpoint",
            "trace_id",
        ] {
            assert_eq!(own[name], line[name]);
        }
        assert_eq!(sizes(own), sizes(line));
    }
    let all = proxy.process.log() + &std::fs::read_to_string(&file).unwrap();
    assert!(!all.contains("secret"), "{all}");

    // The file is moved away, as by logrotate, and reopened.
    std::fs::rename(&file, &moved).unwrap();
    proxy.process.signal("HUP");
    let until = Instant::now() + LIMIT;
    while !file.exists() {
        assert!(Instant::now() < until, "{}", proxy.process.tail());
        std::thread::sleep(Duration::from_millis(10));
    }
    client.unary(RANGE, &read, &[]).await;
    assert_eq!(lines(&file, 1).len(), 1);
    assert_eq!(lines(&moved, 9).len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_level_logs_keys_and_client_names() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let flags = [
        flag("cert-file", &tls.server.cert),
        flag("key-file", &tls.server.key),
        flag("trusted-ca-file", &tls.ca),
        "--access-log=-".to_owned(),
        "--debug".to_owned(),
    ];
    let mut proxy = Proxy::start(&cluster, &flags);
    let config = tls.client_config(Some(&tls.issue("named", |params| {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "anna");
    })));
    let client = Client::connect_tls(proxy.address(), config).await.unwrap();
    let put = key("a-key").bytes(2, "a-secret").int(3, 0);
    client.unary(PUT, &put, &[]).await;
    let compare = Msg::new().bytes(3, "a-key");
    let txn = Msg::new().msg(1, compare);
    client.unary(TXN, &txn, &[]).await;
    let found = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["method"] == TXN && line["client_name"] == "anna").then_some(line)
    };
    let line = proxy.process.wait_line(LIMIT, found);
    assert_eq!(line.unwrap()["request"], serde_json::json!({"compares": 1}));
    let log = proxy.process.log();
    assert!(
        log.contains(r#""request":{"key":"a-key","value_size":8"#),
        "{log}"
    );
    assert!(!log.contains("a-secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_access_log_delays_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    // Open for reading and writing, so that opening does not block; nothing is ever read.
    let reader = std::fs::File::options().read(true).write(true).open(&fifo);
    let _reader = reader.unwrap();
    let access_log = format!("--access-log={}", fifo.display());
    let mut proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1", &access_log]);
    let client = Client::connect(proxy.address()).await;
    let callers = (0..32).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..300 {
                // The proxy responds without etcd.
                client.unary(MEMBER_LIST, b"", &[]).await.only();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let dropped = "etcd_edge_telemetry_dropped_total{kind=\"log_line\"}";
    let dropped = wait_metric(proxy.address(), dropped, LIMIT, |lost| lost > 0.0);
    println!("{dropped} of 9600 lines were dropped");
    assert!(dropped < 1600.0, "the queue has more capacity");
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.wait(LIMIT).code(), Some(0));
}

#[test]
fn unopenable_access_log_is_reported() {
    let mut process = Proxy::spawn(&["--access-log=/no/such/folder/a.log"]);
    let expected = "etcd-edge: --access-log=/no/such/folder/a.log: No such file or directory";
    let found = |line: &str| line.starts_with(expected).then_some(());
    process.wait_line(LIMIT, found).unwrap();
    assert_eq!(process.wait(LIMIT).code(), Some(1));
}
