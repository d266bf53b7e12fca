//! Watches whose stream to etcd is lost at the moments a real etcd cannot be made to choose (W2, W4,
//! W10).

use h2::Reason;

use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::{IncomingCall, ScriptedEtcd};
use crate::{Call, Scene};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEY: &str = "k";

/// ResponseHeader of the one cluster there is.
fn header(revision: i64) -> Msg {
    Msg::new().int(1, 77).int(2, 7).int(3, revision).int(4, 2)
}

fn answer(revision: i64, id: i64) -> Msg {
    Msg::new().msg(1, header(revision)).int(2, id)
}

/// One put at a revision.
fn event(revision: i64, id: i64) -> Msg {
    let kv = Msg::new()
        .bytes(1, KEY)
        .int(2, 1)
        .int(3, revision)
        .int(4, 1)
        .bytes(5, "v");
    answer(revision, id).msg(11, Msg::new().msg(2, kv))
}

/// What the proxy wants of etcd for a watch.
struct Wanted {
    call: IncomingCall,
    id: i64,
    start: i64,
}

/// Answers what the proxy asks beside, until it asks for a watch.
async fn wanted(etcd: &mut ScriptedEtcd) -> Wanted {
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
                    // It only wants to know who is there.
                    call.headers(&[]);
                    let refused = answer(5, -1).int(3, 1).int(4, 1);
                    call.send(refused.as_ref());
                    continue;
                }
                assert_eq!(pb::bytes(&request, &[1, 1]), KEY.as_bytes());
                let id = pb::int(&request, &[1, 7]);
                return Wanted { call, id, start };
            }
            other => panic!("nobody wants {other}"),
        }
    }
}

/// How a stream ends without its watches' fault.
const LOSSES: [fn(&mut IncomingCall); 4] = [
    |call| call.reset(Reason::INTERNAL_ERROR),
    |call| call.conn.close(),
    |call| call.conn.go_away(0, Reason::NO_ERROR),
    |call| call.trailers_only(&[("grpc-status", "14"), ("grpc-message", "gone")]),
];

async fn next(client: &mut Call) -> Msg {
    let message = client.next().await.expect("the stream goes on");
    pb::without(&message, &[99])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_lost_before_created_is_told_begins_anew() {
    for lose in LOSSES {
        let mut scene = Scene::start(2).await;
        let mut client = scene.open(WATCH).await;
        let create = Msg::new().msg(1, Msg::new().bytes(1, KEY));
        client.send(create.as_ref()).await;
        let mut first = wanted(&mut scene.etcd).await;
        assert_eq!(first.start, 0);
        lose(&mut first.call);
        let mut second = wanted(&mut scene.etcd).await;
        assert_eq!(second.start, 0, "nothing was promised");
        second.call.headers(&[]);
        second.call.send(answer(9, second.id).int(3, 1).as_ref());
        let created = next(&mut client).await;
        assert_eq!(pb::int(created.as_ref(), &[3]), 1);
        assert_eq!(pb::int(created.as_ref(), &[1, 3]), 9);
        // It was registered before the revision was read: this one trails behind it.
        second.call.send(event(9, second.id).as_ref());
        second.call.send(event(10, second.id).as_ref());
        let told = next(&mut client).await;
        assert_eq!(pb::int(told.as_ref(), &[11, 2, 3]), 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_lost_after_an_event_goes_on_behind_it() {
    for lose in &LOSSES[..2] {
        let mut scene = Scene::start(2).await;
        let mut client = scene.open(WATCH).await;
        let create = Msg::new().msg(1, Msg::new().bytes(1, KEY));
        client.send(create.as_ref()).await;
        let mut first = wanted(&mut scene.etcd).await;
        first.call.headers(&[]);
        first.call.send(answer(6, first.id).int(3, 1).as_ref());
        next(&mut client).await;
        first.call.send(event(8, first.id).as_ref());
        let told = next(&mut client).await;
        assert_eq!(pb::int(told.as_ref(), &[11, 2, 3]), 8);
        lose(&mut first.call);
        let mut second = wanted(&mut scene.etcd).await;
        // Not from beyond what was told, which etcd may take for the future.
        assert_eq!(second.start, 8);
        second.call.headers(&[]);
        second.call.send(answer(12, second.id).int(3, 1).as_ref());
        second.call.send(event(8, second.id).as_ref());
        second.call.send(event(11, second.id).as_ref());
        let told = next(&mut client).await;
        assert_eq!(pb::int(told.as_ref(), &[11, 2, 3]), 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_wants_no_sharing_is_relayed() {
    let mut scene = Scene::start(1).await;
    let mut client = scene.client.call(WATCH, &[("etcd-edge-bypass", "1")]).await;
    client.send("as it is").await;
    let mut call = scene.etcd.next().await;
    assert_eq!(call.path(), WATCH);
    assert_eq!(call.message().await.unwrap(), "as it is");
    call.headers(&[]);
    call.send("so be it");
    assert_eq!(client.next().await.unwrap(), "so be it");
}
