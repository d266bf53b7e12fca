//! Tests of a namespace with scripted responses: large, slow, in pieces, or more than one message
//! (N1, S1, R3).

use std::time::Duration;

use bytes::Bytes;

use crate::support::grpc::Client;
use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::framed;
use crate::{OK, PUT, RANGE, Scene, join_task};

const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

const NAMESPACE: &str = "--namespace=ns/";
const ONE_WORKER: &str = "--workers=1";

fn value(revision: i64, key: &str, value: impl AsRef<[u8]>) -> Msg {
    let kv = Msg::new().bytes(1, key).int(3, 2).bytes(5, value);
    Msg::new().msg(1, Msg::new().int(3, revision)).msg(2, kv)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_larger_than_the_connection_queue_arrives() {
    let mut scene = Scene::with(1, &[NAMESPACE]).await;
    let large = vec![b'v'; 70 << 20];
    let reply = scene.call_with(RANGE, Msg::new().bytes(1, "k"), &[]);
    let mut call = scene.etcd.next().await;
    assert_eq!(pb::bytes(&call.message().await.unwrap(), &[1]), b"ns/k");
    call.respond(value(7, "ns/k", &large));
    let reply = join_task(reply).await;
    assert_eq!(reply.code(), OK, "{}", reply.message());
    assert_eq!(pb::bytes(reply.only(), &[2, 1]), b"k");
    assert!(pb::bytes(reply.only(), &[2, 5]) == large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_before_a_rejected_message_on_the_stream_invalidates_the_cache() {
    let mut scene = Scene::with(1, &[NAMESPACE, "--cache-max-age=1h"]).await;
    let read = || Msg::new().bytes(1, "k").int(7, 1);
    let reply = scene.call_with(RANGE, read(), &[]);
    scene.etcd.next().await.respond(value(5, "ns/k", "old"));
    assert_eq!(pb::bytes(join_task(reply).await.only(), &[2, 5]), b"old");
    let mut put = scene.open(PUT).await;
    put.send(Msg::new().bytes(1, "k").bytes(2, "new")).await;
    // etcd has the put, and applies it without waiting for the end of the stream.
    let mut at_etcd = scene.etcd.next().await;
    assert_eq!(pb::bytes(&at_etcd.message().await.unwrap(), &[2]), b"new");
    // A message without a key.
    put.send(Msg::new()).await;
    let refused = put.finish().await;
    assert_eq!(refused.code(), Some(3), "{}", refused.message());
    at_etcd.cancelled().await;
    let reply = scene.call_with(RANGE, read(), &[]);
    scene.etcd.next().await.respond(value(6, "ns/k", "new"));
    assert_eq!(pb::bytes(join_task(reply).await.only(), &[2, 5]), b"new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_requests_do_not_block_other_clients() {
    let mut scene = Scene::with(1, &[NAMESPACE, ONE_WORKER]).await;
    let greedy = Client::connect(scene.proxy.address()).await;
    let whole = framed(
        Msg::new()
            .bytes(1, "k")
            .bytes(2, vec![b'v'; 1 << 20])
            .as_ref(),
    );
    let mut unfinished = Vec::new();
    // More bytes than the budget, the last ones in small pieces, so that the budget is used up.
    for n in 0..100 {
        let bytes = if n < 70 { 1 << 20 } else { 64 << 10 };
        let mut call = greedy.call(PUT, &[]).await;
        call.send_raw(whole.slice(..bytes)).await;
        unfinished.push((call, scene.etcd.next().await));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Large enough to arrive in pieces.
    let mut put = scene.open(PUT).await;
    let message = Msg::new().bytes(1, "k").bytes(2, vec![b'v'; 300 << 10]);
    let message = framed(message.as_ref());
    put.send_raw(message.slice(..200 << 10)).await;
    let mut at_etcd = scene.etcd.next().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    put.send_raw(message.slice(200 << 10..)).await;
    put.half_close();
    assert_eq!(pb::bytes(&at_etcd.message().await.unwrap(), &[1]), b"ns/k");
    at_etcd.respond(Msg::new());
    assert_eq!(put.finish().await.code(), OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_writes_on_one_connection_all_arrive() {
    let mut scene = Scene::with(1, &[NAMESPACE, ONE_WORKER]).await;
    let large = Bytes::from(vec![b'v'; 1 << 20]);
    let puts: Vec<_> = (0..48)
        .map(|_| scene.call_with(PUT, Msg::new().bytes(1, "k").bytes(2, &large), &[]))
        .collect();
    for _ in 0..puts.len() {
        let mut call = scene.etcd.next().await;
        tokio::spawn(async move {
            assert_eq!(pb::bytes(&call.message().await.unwrap(), &[1]), b"ns/k");
            call.respond(Msg::new());
        });
    }
    for put in puts {
        assert_eq!(join_task(put).await.code(), OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_message_after_a_checked_request_is_not_forwarded() {
    let mut scene = Scene::with(1, &[NAMESPACE]).await;
    let mut revoke = scene.open(REVOKE).await;
    revoke.send(Msg::new().int(1, 7)).await;
    revoke.send(Msg::new().int(1, 8)).await;
    revoke.half_close();
    let reply = tokio::spawn(revoke.finish());
    if let Some(mut call) = scene.etcd.next_within(Duration::from_millis(300)).await {
        assert_eq!(call.path(), TIME_TO_LIVE);
        call.respond(Msg::new().int(2, 7).bytes(5, "ns/k"));
    }
    scene.etcd.assert_no_more_calls().await;
    assert_eq!(join_task(reply).await.code(), Some(7));
}
