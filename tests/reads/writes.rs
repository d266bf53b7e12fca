//! Whoever is told that a write is done finds it, whatever wrote it, and so does everybody after it (R3).

use std::future::Future;

use crate::support::beats::{grant, put_with, revoke};
use crate::support::grpc::{Client, Reply};
use crate::support::pb::{self, Msg};
use crate::{LONG, TXN, ask, hits, put, range, read, scene, serializable};

/// Keeps what is asked for in several ways, has something written, and asks again on connections that
/// have been shown nothing: the answers are etcd's own.
async fn seen<F: Future>(write: impl FnOnce(Client) -> F) {
    let (cluster, proxy) = scene(&[LONG]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let writer = Client::connect(proxy.address()).await;
    for key in ["a/1", "a/2", "b/1", "c"] {
        put(&writer, key, "old").await;
    }
    let questions = || {
        [
            range("a/1", ""),
            range("a/2", ""),
            range("a/", "a0"),
            range("a/", "a0").int(9, 1),
            range("a/2", "\0"),
            range("\0", "\0"),
        ]
    };
    for question in questions() {
        ask(&writer, serializable(question)).await;
    }
    let kept = hits(&proxy);
    for question in questions() {
        ask(&writer, serializable(question)).await;
    }
    assert_eq!(hits(&proxy), kept + 6.0, "they were not kept");
    write(writer).await;
    let reader = Client::connect(proxy.address()).await;
    for question in questions() {
        let given = ask(&reader, serializable(question.clone())).await;
        let told = ask(&direct, question.clone()).await;
        // What was not written to is as true at the revision of before.
        let content = |reply: &Reply| pb::without(reply.only(), &[1]).as_ref().to_vec();
        assert_eq!(content(&given), content(&told), "{question:?}");
    }
}

fn put_op(key: &str) -> Msg {
    Msg::new().msg(2, Msg::new().bytes(1, key).bytes(2, "new"))
}

fn delete(key: &str, end: &str) -> Msg {
    let delete = Msg::new().bytes(1, key);
    if end.is_empty() {
        delete
    } else {
        delete.bytes(2, end)
    }
}

/// A comparison that does not hold: `c` was never changed.
fn never() -> Msg {
    let compare = Msg::new().int(1, 0).int(2, 0).bytes(3, "c").int(4, 7);
    Msg::new().msg(1, compare)
}

async fn done(client: &Client, path: &str, request: Msg) {
    let reply = client.unary(path, request, &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put() {
    seen(|client: Client| async move {
        put(&client, "a/2", "new").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction() {
    seen(|client: Client| async move {
        done(
            &client,
            TXN,
            Msg::new().msg(2, put_op("a/1")).msg(2, put_op("b/1")),
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_fails_and_writes_for_that() {
    seen(|client: Client| async move {
        done(
            &client,
            TXN,
            never().msg(2, put_op("b/1")).msg(3, put_op("a/2")),
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_within_others() {
    seen(|client: Client| async move {
        let inner = Msg::new().msg(2, put_op("a/2"));
        let middle = never().msg(3, Msg::new().msg(4, inner));
        done(&client, TXN, Msg::new().msg(2, Msg::new().msg(4, middle))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_deleted() {
    seen(|client: Client| async move {
        done(&client, "/etcdserverpb.KV/DeleteRange", delete("a/1", "")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_that_is_deleted() {
    seen(|client: Client| async move {
        done(&client, "/etcdserverpb.KV/DeleteRange", delete("a/", "a0")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_from_a_key_on_that_is_deleted() {
    seen(|client: Client| async move {
        done(&client, "/etcdserverpb.KV/DeleteRange", delete("a/2", "\0")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_within_a_transaction() {
    seen(|client: Client| async move {
        let op = Msg::new().msg(3, delete("a/", "a0"));
        done(&client, TXN, Msg::new().msg(2, op)).await;
    })
    .await;
}

/// etcd 3.7 makes one of two that are in one place: all from `a` on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_there_twice() {
    seen(|client: Client| async move {
        let op = Msg::new().msg(3, delete("m", "\0")).msg(3, delete("a", ""));
        done(&client, TXN, Msg::new().msg(2, op)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_revoked() {
    let (_cluster, proxy) = scene(&[LONG]);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    put_with(&client, "k", lease, &[]).await;
    for _ in 0..2 {
        assert_eq!(read(&client, "k", "").await, ["v"]);
    }
    assert_eq!(hits(&proxy), 1.0);
    revoke(&client, lease).await;
    let reader = Client::connect(proxy.address()).await;
    assert_eq!(read(&reader, "k", "").await, [""; 0]);
}

/// Nobody tells of it: the answer's age does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_over() {
    let (cluster, proxy) = scene(&[]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 1).await;
    put_with(&client, "k", lease, &[]).await;
    let reader = Client::connect(proxy.address()).await;
    while !crate::values(&ask(&direct, range("k", "")).await).is_empty() {
        read(&reader, "k", "").await;
    }
    assert!(hits(&proxy) > 0.0);
    tokio::time::sleep(etcd_edge::limits::CACHE_MAX_AGE).await;
    assert_eq!(read(&reader, "k", "").await, [""; 0]);
}

/// Locks and elections write keys that their requests do not name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock() {
    let (_cluster, proxy) = scene(&[LONG]);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    for _ in 0..2 {
        assert_eq!(read(&client, "l", "m").await, [""; 0]);
    }
    assert_eq!(hits(&proxy), 1.0);
    let lock = Msg::new().bytes(1, "lock").int(2, lease);
    done(&client, "/v3lockpb.Lock/Lock", lock).await;
    let reader = Client::connect(proxy.address()).await;
    assert_eq!(read(&reader, "l", "m").await.len(), 1);
}
