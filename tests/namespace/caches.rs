//! Tests of cached reads and watches in a namespace. A write through the proxy is visible to every
//! later read, watches back popular entries, and nested namespaces see each other's keys (R2, R3).

use std::time::Duration;

use crate::scene::{DELETE, PUT, RANGE, REVOKE, TXN, WATCH, call_ok, repeated};
use crate::start;
use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, LIMIT};
use crate::support::heartbeats::grant;
use crate::support::pb::{self, Msg};
use crate::support::proxy_output::{metric, wait_metric};
use crate::support::release::versions;

const HITS: &str = "etcd_edge_cache_hits_total";
const WATCH_BACKED: &str = "etcd_edge_cache_watch_backed_entries";

fn range(key: &str, end: &str) -> Msg {
    let range = Msg::new().bytes(1, key);
    if end.is_empty() {
        return range;
    }
    range.bytes(2, end)
}

fn put(key: &str, value: &str) -> Msg {
    Msg::new().bytes(1, key).bytes(2, value)
}

/// Reads keys and values of a range, serializably.
async fn read(client: &Client, key: &str, end: &str) -> Vec<String> {
    let reply = call_ok(client, RANGE, range(key, end).int(7, 1)).await;
    kvs(reply.only())
}

/// Reads keys and values of a range, linearizably.
async fn read_now(client: &Client, key: &str, end: &str) -> Vec<String> {
    kvs(call_ok(client, RANGE, range(key, end)).await.only())
}

fn kvs(response: &[u8]) -> Vec<String> {
    let text = |kv: &[u8], field| String::from_utf8_lossy(&pb::bytes(kv, &[field])).into_owned();
    let kv = |kv: Vec<u8>| format!("{}={}", text(&kv, 1), text(&kv, 5));
    repeated(response, 2).map(kv).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_before_the_writer_gets_its_response() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        // The age limit is so long that only a write drops an entry.
        let proxy = start(&cluster, "p/", &["--cache-max-age=1h"]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let writer = Client::connect(proxy.address()).await;
        let lease = grant(&writer, 600).await;
        let ranges = [("a/1", ""), ("a/", "a0"), ("a/2", "\0"), ("\0", "\0")];
        let op = |number, op: Msg| Msg::new().msg(2, Msg::new().msg(number, op));
        let nested = Msg::new().msg(2, Msg::new().msg(4, op(2, put("a/2", "nested"))));
        let writes = [
            (PUT, put("a/1", "put")),
            (PUT, put("a/2", "put")),
            (TXN, op(2, put("a/1", "txn"))),
            (TXN, nested),
            (TXN, op(3, range("a/", "a0"))),
            (PUT, put("a/1", "leased").int(3, lease)),
            (DELETE, range("a/2", "\0")),
            (REVOKE, Msg::new().int(1, lease)),
            (PUT, put("b", "other")),
            (DELETE, range("\0", "\0")),
        ];
        for (path, write) in writes {
            for _ in 0..2 {
                for (key, end) in ranges {
                    read(&writer, key, end).await;
                }
            }
            call_ok(&writer, path, &write).await;
            // A new connection has no floor.
            let reader = Client::connect(proxy.address()).await;
            for (key, end) in ranges {
                let stored_end = match end {
                    "" => String::new(),
                    "\0" => "p0".to_owned(),
                    end => format!("p/{end}"),
                };
                let stored = read_now(&direct, &format!("p/{key}"), &stored_end).await;
                let stored: Vec<_> = stored
                    .iter()
                    .map(|kv| kv["p/".len()..].to_owned())
                    .collect();
                let cached = read(&reader, key, end).await;
                assert_eq!(
                    cached, stored,
                    "{version}: {key:?} {end:?} after {path} {write:?}"
                );
            }
        }
        assert!(metric(proxy.address(), HITS) >= 4.0, "nothing was cached");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn popular_read_becomes_watch_backed() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = start(&cluster, "p/", &[]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        call_ok(&direct, PUT, put("p/hot/k", "first")).await;
        call_ok(&direct, PUT, put("hot/k", "outside")).await;
        let client = Client::connect(proxy.address()).await;
        let read_hot = async || {
            read(&client, "hot/", "hot0").await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let until = tokio::time::Instant::now() + LIMIT;
        while metric(proxy.address(), WATCH_BACKED) != 1.0 {
            assert!(
                tokio::time::Instant::now() < until,
                "{version}: no watch-backed entry"
            );
            read_hot().await;
        }
        let written = "etcd_edge_cache_rejected_total{reason=\"written\"}";
        let before = metric(proxy.address(), written);
        for n in 0..20 {
            call_ok(&direct, PUT, put("hot/k", "outside")).await;
            call_ok(&direct, PUT, put("p/hot/k", &n.to_string())).await;
            let want = [format!("hot/k={n}")];
            while read(&client, "hot/", "hot0").await != want {}
        }
        wait_metric(proxy.address(), written, LIMIT, |now| now > before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_namespaces_see_each_others_keys() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let (outer, inner) = (start(&cluster, "a/", &[]), start(&cluster, "a/b/", &[]));
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let outside = Client::connect(outer.address()).await;
        let inside = Client::connect(inner.address()).await;
        let watch = async |client: &Client| {
            let mut call = client.call(WATCH, &[]).await;
            call.send(Msg::new().msg(1, range("\0", "\0"))).await;
            call.next().await.expect("created");
            call
        };
        let (mut outer_watch, mut inner_watch) = (watch(&outside).await, watch(&inside).await);
        // A key that begins like the other prefix is a normal key.
        let writes = [
            (&inside, "k", "a/b/k"),
            (&outside, "b/k", "a/b/k"),
            (&outside, "k", "a/k"),
            (&inside, "b/k", "a/b/b/k"),
            (&outside, "b/b/k", "a/b/b/k"),
            (&inside, "a/b/k", "a/b/a/b/k"),
            (&outside, "b", "a/b"),
            (&direct, "a/b/k", "a/b/k"),
            (&direct, "a/b/", "a/b/"),
            (&outside, "b/", "a/b/"),
        ];
        for (n, (client, key, stored)) in writes.into_iter().enumerate() {
            let value = n.to_string();
            // Both proxies cache the previous content.
            for reader in [&outside, &inside] {
                read(reader, "\0", "\0").await;
            }
            call_ok(client, PUT, put(key, &value)).await;
            let now = read_now(&direct, stored, "").await;
            assert_eq!(now, [format!("{stored}={value}")]);
            let all = read_now(&direct, "\0", "\0").await;
            let of = |prefix: &str| -> Vec<String> {
                let inside = all.iter().filter_map(|kv| kv.strip_prefix(prefix));
                let own = inside.filter(|kv| !kv.starts_with('='));
                own.map(str::to_owned).collect()
            };
            for (client, prefix) in [(&outside, "a/"), (&inside, "a/b/")] {
                assert_eq!(
                    read_now(client, "\0", "\0").await,
                    of(prefix),
                    "{version} {n}"
                );
            }
            // The write of the other proxy becomes visible within the age limit.
            tokio::time::sleep(etcd_edge::limits::CACHE_MAX_AGE).await;
            for (client, prefix) in [(&outside, "a/"), (&inside, "a/b/")] {
                assert_eq!(read(client, "\0", "\0").await, of(prefix), "{version} {n}");
            }
        }
        let mut watches = [(&mut outer_watch, "a/"), (&mut inner_watch, "a/b/")];
        for (call, prefix) in &mut watches {
            let inside = writes.iter().enumerate();
            let mut want = inside.filter_map(|(n, (_, _, stored))| {
                let key = stored.strip_prefix(*prefix).filter(|key| !key.is_empty())?;
                Some(format!("{key}={n}"))
            });
            let mut wanted = want.next();
            while wanted.is_some() {
                let message = call.next().await.expect("an event");
                for event in repeated(&message, 11) {
                    let text =
                        |n| String::from_utf8_lossy(&pb::bytes(&event, &[2, n])).into_owned();
                    let event = format!("{}={}", text(1), text(5));
                    assert_eq!(Some(event), wanted, "{version} {prefix}");
                    wanted = want.next();
                }
            }
        }
    }
}
