//! Tests of watches that lose their upstream stream at moments that a real etcd cannot reproduce
//! (W2, W4, W10).

use h2::Reason;

use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::{IncomingCall, ScriptedEtcd};
use crate::{Call, Scene};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEY: &str = "k";

/// Returns a ResponseHeader of the cluster.
fn header(revision: i64) -> Msg {
    Msg::new().int(1, 77).int(2, 7).int(3, revision).int(4, 2)
}

fn response(revision: i64, id: i64) -> Msg {
    Msg::new().msg(1, header(revision)).int(2, id)
}

/// Returns a response with one put at a revision.
fn event(revision: i64, id: i64) -> Msg {
    let kv = Msg::new()
        .bytes(1, KEY)
        .int(2, 1)
        .int(3, revision)
        .int(4, 1)
        .bytes(5, "v");
    response(revision, id).msg(11, Msg::new().msg(2, kv))
}

/// A create request of the proxy at etcd.
struct UpstreamCreate {
    call: IncomingCall,
    id: i64,
    start: i64,
}

/// Responds to the other requests of the proxy, until it creates a watch.
async fn next_create(etcd: &mut ScriptedEtcd) -> UpstreamCreate {
    loop {
        let mut call = etcd.next().await;
        let path = call.path().to_owned();
        match path.as_str() {
            "/etcdserverpb.KV/Txn" => call.respond(Msg::new().msg(1, header(5)).as_ref()),
            "/etcdserverpb.Maintenance/Status" => {
                call.respond(Msg::new().msg(1, header(5)).bytes(2, "3.6.1").as_ref());
            }
            WATCH => {
                let request = call.message().await.expect("a create");
                let start = pb::int(&request, &[1, 3]);
                if start < 0 {
                    // A permission check, which never creates a watch.
                    call.headers(&[]);
                    let refused = response(5, -1).int(3, 1).int(4, 1);
                    call.send(refused.as_ref());
                    continue;
                }
                assert_eq!(pb::bytes(&request, &[1, 1]), KEY.as_bytes());
                let id = pb::int(&request, &[1, 7]);
                return UpstreamCreate { call, id, start };
            }
            other => panic!("unexpected call of {other}"),
        }
    }
}

/// Ways in which a stream ends for a reason unrelated to its watches.
const LOSSES: [fn(&mut IncomingCall); 4] = [
    |call| call.reset(Reason::INTERNAL_ERROR),
    |call| call.conn.close(),
    |call| call.conn.go_away(0, Reason::NO_ERROR),
    |call| call.trailers_only(&[("grpc-status", "14"), ("grpc-message", "gone")]),
];

async fn next(client: &mut Call) -> Msg {
    let message = client.next().await.expect("the stream continues");
    pb::without(&message, &[99])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_restarts_if_its_stream_is_lost_before_created() {
    for lose in LOSSES {
        let mut scene = Scene::start(2).await;
        let mut client = scene.open(WATCH).await;
        let create = Msg::new().msg(1, Msg::new().bytes(1, KEY));
        client.send(create.as_ref()).await;
        let mut first = next_create(&mut scene.etcd).await;
        assert_eq!(first.start, 0);
        lose(&mut first.call);
        let mut second = next_create(&mut scene.etcd).await;
        assert_eq!(second.start, 0, "no revision was returned before");
        second.call.headers(&[]);
        second.call.send(response(9, second.id).int(3, 1).as_ref());
        let created = next(&mut client).await;
        assert_eq!(pb::int(created.as_ref(), &[3]), 1);
        assert_eq!(pb::int(created.as_ref(), &[1, 3]), 9);
        // etcd registers a watch before it reads the revision, so this event trails behind
        // `created`.
        second.call.send(event(9, second.id).as_ref());
        second.call.send(event(10, second.id).as_ref());
        let events = next(&mut client).await;
        assert_eq!(pb::int(events.as_ref(), &[11, 2, 3]), 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_resumes_after_its_last_event_if_its_stream_is_lost() {
    for lose in &LOSSES[..2] {
        let mut scene = Scene::start(2).await;
        let mut client = scene.open(WATCH).await;
        let create = Msg::new().msg(1, Msg::new().bytes(1, KEY));
        client.send(create.as_ref()).await;
        let mut first = next_create(&mut scene.etcd).await;
        first.call.headers(&[]);
        first.call.send(response(6, first.id).int(3, 1).as_ref());
        next(&mut client).await;
        first.call.send(event(8, first.id).as_ref());
        let events = next(&mut client).await;
        assert_eq!(pb::int(events.as_ref(), &[11, 2, 3]), 8);
        lose(&mut first.call);
        let mut second = next_create(&mut scene.etcd).await;
        // The next revision may be in the future for etcd, so the watch starts at the last event.
        assert_eq!(second.start, 8);
        second.call.headers(&[]);
        second.call.send(response(12, second.id).int(3, 1).as_ref());
        second.call.send(event(8, second.id).as_ref());
        second.call.send(event(11, second.id).as_ref());
        let events = next(&mut client).await;
        assert_eq!(pb::int(events.as_ref(), &[11, 2, 3]), 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_with_bypass_metadata_is_relayed() {
    let mut scene = Scene::start(1).await;
    let mut client = scene.client.call(WATCH, &[("etcd-edge-bypass", "1")]).await;
    client.send("a request").await;
    let mut call = scene.etcd.next().await;
    assert_eq!(call.path(), WATCH);
    assert_eq!(call.message().await.unwrap(), "a request");
    call.headers(&[]);
    call.send("a response");
    assert_eq!(client.next().await.unwrap(), "a response");
}
