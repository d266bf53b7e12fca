//! Kept answers and watches in a namespace: what is written through the proxy is seen by whoever reads after
//! it, a watch proves what is hot, and namespaces within each other see each other's keys (R2, R3).

use std::time::Duration;

use crate::scene::{DELETE, PUT, RANGE, REVOKE, TXN, WATCH, done, repeated};
use crate::start;
use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, LIMIT};
use crate::support::heartbeats::grant;
use crate::support::pb::{self, Msg};
use crate::support::proxy_output::{metric, wait_metric};
use crate::support::release::versions;

const HITS: &str = "etcd_edge_cache_hits_total";
const COVERS: &str = "etcd_edge_cache_watch_backed_entries";

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

/// Keys and values of a range that any member may answer.
async fn read(client: &Client, key: &str, end: &str) -> Vec<String> {
    let reply = done(client, RANGE, range(key, end).int(7, 1)).await;
    kvs(reply.only())
}

/// The same as etcd has it now.
async fn read_now(client: &Client, key: &str, end: &str) -> Vec<String> {
    kvs(done(client, RANGE, range(key, end)).await.only())
}

fn kvs(answer: &[u8]) -> Vec<String> {
    let text = |kv: &[u8], field| String::from_utf8_lossy(&pb::bytes(kv, &[field])).into_owned();
    let kv = |kv: Vec<u8>| format!("{}={}", text(&kv, 1), text(&kv, 5));
    repeated(answer, 2).map(kv).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_answer_is_dropped_before_its_writer_is_told() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        // So long that only a write drops it.
        let proxy = start(&cluster, "p/", &["--cache-max-age=1h"]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let writer = Client::connect(proxy.address()).await;
        let lease = grant(&writer, 600).await;
        let questions = [("a/1", ""), ("a/", "a0"), ("a/2", "\0"), ("\0", "\0")];
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
                for (key, end) in questions {
                    read(&writer, key, end).await;
                }
            }
            done(&writer, path, &write).await;
            // On a connection that has been shown nothing.
            let reader = Client::connect(proxy.address()).await;
            for (key, end) in questions {
                let end_there = match end {
                    "" => String::new(),
                    "\0" => "p0".to_owned(),
                    end => format!("p/{end}"),
                };
                let there = read_now(&direct, &format!("p/{key}"), &end_there).await;
                let there: Vec<_> = there.iter().map(|kv| kv["p/".len()..].to_owned()).collect();
                let given = read(&reader, key, end).await;
                assert_eq!(
                    given, there,
                    "{version}: {key:?} {end:?} after {path} {write:?}"
                );
            }
        }
        assert!(metric(proxy.address(), HITS) >= 4.0, "nothing was kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_proves_what_is_hot() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = start(&cluster, "p/", &[]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        done(&direct, PUT, put("p/hot/k", "first")).await;
        done(&direct, PUT, put("hot/k", "outside")).await;
        let client = Client::connect(proxy.address()).await;
        let hot = async || {
            read(&client, "hot/", "hot0").await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let until = tokio::time::Instant::now() + LIMIT;
        while metric(proxy.address(), COVERS) != 1.0 {
            assert!(
                tokio::time::Instant::now() < until,
                "{version}: never covered"
            );
            hot().await;
        }
        let written = "etcd_edge_cache_rejected_total{reason=\"written\"}";
        let before = metric(proxy.address(), written);
        for n in 0..20 {
            done(&direct, PUT, put("hot/k", "outside")).await;
            done(&direct, PUT, put("p/hot/k", &n.to_string())).await;
            let want = [format!("hot/k={n}")];
            while read(&client, "hot/", "hot0").await != want {}
        }
        wait_metric(proxy.address(), written, LIMIT, |now| now > before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_within_each_other_see_each_others_keys() {
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
        let (mut outer_told, mut inner_told) = (watch(&outside).await, watch(&inside).await);
        // What begins like the other's prefix is a key as any other.
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
        for (n, (client, typed, stored)) in writes.into_iter().enumerate() {
            let value = n.to_string();
            // Both keep what was before.
            for reader in [&outside, &inside] {
                read(reader, "\0", "\0").await;
            }
            done(client, PUT, put(typed, &value)).await;
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
            // The other's writes are seen within the bound of what is kept.
            tokio::time::sleep(etcd_edge::limits::CACHE_MAX_AGE).await;
            for (client, prefix) in [(&outside, "a/"), (&inside, "a/b/")] {
                assert_eq!(read(client, "\0", "\0").await, of(prefix), "{version} {n}");
            }
        }
        let mut told = [(&mut outer_told, "a/"), (&mut inner_told, "a/b/")];
        for (call, prefix) in &mut told {
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
