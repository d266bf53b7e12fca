//! A namespace before an etcd that answers as the test wants: what is large, slow, cut in pieces or
//! more than one message (N1, S1, R3).

use std::time::Duration;

use bytes::Bytes;

use crate::support::grpc::Client;
use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::framed;
use crate::{OK, PUT, RANGE, Scene, ended};

const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

const INSIDE: &str = "--namespace=ns/";
const ONE_WORKER: &str = "--workers=1";

fn value(revision: i64, key: &str, value: impl AsRef<[u8]>) -> Msg {
    let kv = Msg::new().bytes(1, key).int(3, 2).bytes(5, value);
    Msg::new().msg(1, Msg::new().int(3, revision)).msg(2, kv)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_larger_than_what_may_wait_for_a_connection_arrives() {
    let mut scene = Scene::with(1, &[INSIDE]).await;
    let large = vec![b'v'; 70 << 20];
    let reply = scene.call_with(RANGE, Msg::new().bytes(1, "k"), &[]);
    let mut call = scene.etcd.next().await;
    assert_eq!(pb::bytes(&call.message().await.unwrap(), &[1]), b"ns/k");
    call.respond(value(7, "ns/k", &large));
    let reply = ended(reply).await;
    assert_eq!(reply.code(), OK, "{}", reply.message());
    assert_eq!(pb::bytes(reply.only(), &[2, 1]), b"k");
    assert!(pb::bytes(reply.only(), &[2, 5]) == large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_before_what_is_refused_on_the_same_stream_counts() {
    let mut scene = Scene::with(1, &[INSIDE, "--cache-max-age=1h"]).await;
    let read = || Msg::new().bytes(1, "k").int(7, 1);
    let reply = scene.call_with(RANGE, read(), &[]);
    scene.etcd.next().await.respond(value(5, "ns/k", "old"));
    assert_eq!(pb::bytes(ended(reply).await.only(), &[2, 5]), b"old");
    let mut put = scene.open(PUT).await;
    put.send(Msg::new().bytes(1, "k").bytes(2, "new")).await;
    // etcd has it, and does it without waiting for more.
    let mut at_etcd = scene.etcd.next().await;
    assert_eq!(pb::bytes(&at_etcd.message().await.unwrap(), &[2]), b"new");
    // A message without a key.
    put.send(Msg::new()).await;
    let refused = put.finish().await;
    assert_eq!(refused.code(), Some(3), "{}", refused.message());
    at_etcd.cancelled().await;
    let reply = scene.call_with(RANGE, read(), &[]);
    scene.etcd.next().await.respond(value(6, "ns/k", "new"));
    assert_eq!(pb::bytes(ended(reply).await.only(), &[2, 5]), b"new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_never_finished_keep_out_nobody_else() {
    let mut scene = Scene::with(1, &[INSIDE, ONE_WORKER]).await;
    let hoarder = Client::connect(scene.proxy.address()).await;
    let whole = framed(
        Msg::new()
            .bytes(1, "k")
            .bytes(2, vec![b'v'; 1 << 20])
            .as_ref(),
    );
    let mut hoard = Vec::new();
    // More than may be held, the last of it in small pieces, so that no room is left.
    for n in 0..100 {
        let bytes = if n < 70 { 1 << 20 } else { 64 << 10 };
        let mut call = hoarder.call(PUT, &[]).await;
        call.send_raw(whole.slice(..bytes)).await;
        hoard.push((call, scene.etcd.next().await));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Large enough to come in pieces.
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
async fn many_large_writes_of_one_connection_all_arrive() {
    let mut scene = Scene::with(1, &[INSIDE, ONE_WORKER]).await;
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
        assert_eq!(ended(put).await.code(), OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_request_behind_one_that_is_looked_at_does_not_pass() {
    let mut scene = Scene::with(1, &[INSIDE]).await;
    let mut revoke = scene.open(REVOKE).await;
    revoke.send(Msg::new().int(1, 7)).await;
    revoke.send(Msg::new().int(1, 8)).await;
    revoke.half_close();
    let reply = tokio::spawn(revoke.finish());
    if let Some(mut asked) = scene.etcd.next_within(Duration::from_millis(300)).await {
        assert_eq!(asked.path(), TIME_TO_LIVE);
        asked.respond(Msg::new().int(2, 7).bytes(5, "ns/k"));
    }
    scene.etcd.assert_no_more_calls().await;
    assert_eq!(ended(reply).await.code(), Some(7));
}
