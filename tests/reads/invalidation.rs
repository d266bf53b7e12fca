//! Tests of cache invalidation by writes of every kind. After the response to a write, every client
//! reads the written data (R3).

use std::future::Future;

use crate::support::grpc::{Client, Reply};
use crate::support::heartbeats::{grant, put_with_lease, revoke};
use crate::support::pb::{self, Msg};
use crate::{LONG, TXN, hits, put, range, read, scene, send_range, serializable};

/// Caches several requests, calls `write`, and repeats the requests on a new connection without a
/// floor. The responses equal etcd's.
async fn check_invalidated<F: Future>(write: impl FnOnce(Client) -> F) {
    let (cluster, proxy) = scene(&[LONG]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let writer = Client::connect(proxy.address()).await;
    for key in ["a/1", "a/2", "b/1", "c"] {
        put(&writer, key, "old").await;
    }
    let requests = || {
        [
            range("a/1", ""),
            range("a/2", ""),
            range("a/", "a0"),
            range("a/", "a0").int(9, 1),
            range("a/2", "\0"),
            range("\0", "\0"),
        ]
    };
    for request in requests() {
        send_range(&writer, serializable(request)).await;
    }
    let before = hits(&proxy);
    for request in requests() {
        send_range(&writer, serializable(request)).await;
    }
    assert_eq!(hits(&proxy), before + 6.0, "responses were not cached");
    write(writer).await;
    let reader = Client::connect(proxy.address()).await;
    for request in requests() {
        let reply = send_range(&reader, serializable(request.clone())).await;
        let expected = send_range(&direct, request.clone()).await;
        // A range without a write has the same content at the earlier revision.
        let content = |reply: &Reply| pb::without(reply.only(), &[1]).as_ref().to_vec();
        assert_eq!(content(&reply), content(&expected), "{request:?}");
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

/// Returns a comparison that fails: `c` has been written once.
fn failing_compare() -> Msg {
    let compare = Msg::new().int(1, 0).int(2, 0).bytes(3, "c").int(4, 7);
    Msg::new().msg(1, compare)
}

async fn call_ok(client: &Client, path: &str, request: Msg) {
    let reply = client.unary(path, request, &[]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_put() {
    check_invalidated(|client: Client| async move {
        put(&client, "a/2", "new").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_txn_that_writes_the_key() {
    check_invalidated(|client: Client| async move {
        call_ok(
            &client,
            TXN,
            Msg::new().msg(2, put_op("a/1")).msg(2, put_op("b/1")),
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_the_failure_branch_of_a_txn() {
    check_invalidated(|client: Client| async move {
        call_ok(
            &client,
            TXN,
            failing_compare()
                .msg(2, put_op("b/1"))
                .msg(3, put_op("a/2")),
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_nested_txn() {
    check_invalidated(|client: Client| async move {
        let inner = Msg::new().msg(2, put_op("a/2"));
        let middle = failing_compare().msg(3, Msg::new().msg(4, inner));
        call_ok(&client, TXN, Msg::new().msg(2, Msg::new().msg(4, middle))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_delete() {
    check_invalidated(|client: Client| async move {
        call_ok(&client, "/etcdserverpb.KV/DeleteRange", delete("a/1", "")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_prefix_delete() {
    check_invalidated(|client: Client| async move {
        call_ok(&client, "/etcdserverpb.KV/DeleteRange", delete("a/", "a0")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_an_open_ended_delete() {
    check_invalidated(|client: Client| async move {
        call_ok(&client, "/etcdserverpb.KV/DeleteRange", delete("a/2", "\0")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_delete_in_a_txn() {
    check_invalidated(|client: Client| async move {
        let op = Msg::new().msg(3, delete("a/", "a0"));
        call_ok(&client, TXN, Msg::new().msg(2, op)).await;
    })
    .await;
}

/// etcd 3.7 merges two deletes in one operation: the result deletes all keys from `a` on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_duplicated_delete_in_a_txn() {
    check_invalidated(|client: Client| async move {
        let op = Msg::new().msg(3, delete("m", "\0")).msg(3, delete("a", ""));
        call_ok(&client, TXN, Msg::new().msg(2, op)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_lease_revoke() {
    let (_cluster, proxy) = scene(&[LONG]);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    put_with_lease(&client, "k", lease, &[]).await;
    for _ in 0..2 {
        assert_eq!(read(&client, "k", "").await, ["v"]);
    }
    assert_eq!(hits(&proxy), 1.0);
    revoke(&client, lease).await;
    let reader = Client::connect(proxy.address()).await;
    assert_eq!(read(&reader, "k", "").await, [""; 0]);
}

/// The proxy does not see an expiry, so the age limit of the entry applies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_expires_after_its_lease_expired() {
    let (cluster, proxy) = scene(&[]);
    let direct = Client::connect(&cluster.endpoint(0)).await;
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 1).await;
    put_with_lease(&client, "k", lease, &[]).await;
    let reader = Client::connect(proxy.address()).await;
    while !crate::values(&send_range(&direct, range("k", "")).await).is_empty() {
        read(&reader, "k", "").await;
    }
    assert!(hits(&proxy) > 0.0);
    tokio::time::sleep(etcd_edge::limits::CACHE_MAX_AGE).await;
    assert_eq!(read(&reader, "k", "").await, [""; 0]);
}

/// Locks and elections write keys that their requests do not name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_dropped_by_a_lock() {
    let (_cluster, proxy) = scene(&[LONG]);
    let client = Client::connect(proxy.address()).await;
    let lease = grant(&client, 60).await;
    for _ in 0..2 {
        assert_eq!(read(&client, "l", "m").await, [""; 0]);
    }
    assert_eq!(hits(&proxy), 1.0);
    let lock = Msg::new().bytes(1, "lock").int(2, lease);
    call_ok(&client, "/v3lockpb.Lock/Lock", lock).await;
    let reader = Client::connect(proxy.address()).await;
    assert_eq!(read(&reader, "l", "m").await.len(), 1);
}
