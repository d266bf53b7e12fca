//! A registration whose answers are lost, and a lease that is gone when it is to be renewed (N4).

use std::time::Duration;

use h2::Reason;

use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::IncomingCall;
use crate::{PUT, RANGE, Scene};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const RENEW: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

const FLAGS: [&str; 4] = [
    "--workers=1",
    "--advertise-client-url=a:1",
    "--resolver-prefix=p",
    "--resolver-ttl=6",
];

/// The next call of the registration. The other task is told that nobody else is there.
async fn next(scene: &mut Scene, watches: &mut Vec<IncomingCall>) -> IncomingCall {
    loop {
        let mut call = scene.etcd.next().await;
        match call.path() {
            RANGE => {
                call.body().await;
                call.respond(Msg::new().msg(1, Msg::new().int(3, 7)));
            }
            WATCH => {
                let create = call.message().await.expect("a create");
                // From the revision of what was read, which had no key.
                assert_eq!(pb::bytes(&create, &[1, 1]), b"p/");
                assert_eq!(pb::bytes(&create, &[1, 2]), b"p0");
                assert_eq!(pb::int(&create, &[1, 3]), 8);
                call.headers(&[]);
                call.send(Msg::new().int(2, 1).int(3, 1));
                watches.push(call);
            }
            _ => return call,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_whose_answer_was_lost_is_taken_up() {
    let mut scene = Scene::with(2, &FLAGS).await;
    let mut watches = Vec::new();
    let mut first = next(&mut scene, &mut watches).await;
    assert_eq!(first.path(), GRANT);
    assert_eq!(first.metadata("hasleader"), ["true"]);
    let asked = first.message().await.expect("a grant");
    let lease = pb::int(&asked, &[2]);
    assert!(lease > 0);
    assert_eq!(pb::int(&asked, &[1]), 6);
    first.reset(Reason::INTERNAL_ERROR);

    let mut second = next(&mut scene, &mut watches).await;
    assert_eq!(second.path(), GRANT);
    assert_eq!(second.message().await.expect("a grant"), asked);
    let exists = "etcdserver: lease already exists";
    second.trailers_only(&[("grpc-status", "9"), ("grpc-message", exists)]);

    let mut put = next(&mut scene, &mut watches).await;
    assert_eq!(put.path(), PUT);
    let message = put.message().await.expect("a put");
    assert_eq!(pb::bytes(&message, &[1]), b"p/a:1");
    assert_eq!(pb::int(&message, &[3]), lease);
    put.respond("");

    // The key was not in what was read, and no event tells of it: a second later it is put again.
    let mut again = next(&mut scene, &mut watches).await;
    let mut renewals = 0;
    while again.path() == RENEW {
        // One request, and the end of the stream.
        let body = again.body().await;
        assert_eq!(pb::int(&body[5..], &[1]), lease);
        again.respond(Msg::new().int(2, lease).int(3, 6));
        renewals += 1;
        again = next(&mut scene, &mut watches).await;
    }
    assert!(renewals <= 2, "{renewals}");
    assert_eq!(again.path(), PUT);
    assert_eq!(again.message().await.expect("a put"), message);
    again.respond("");

    // It is said to be gone when it is to be renewed.
    loop {
        let mut call = next(&mut scene, &mut watches).await;
        match call.path() {
            RENEW => {
                call.body().await;
                call.respond(Msg::new().int(2, lease));
            }
            PUT => call.respond(""),
            path => {
                assert_eq!(path, GRANT);
                let another = pb::int(&call.message().await.expect("a grant"), &[2]);
                assert_ne!(another, lease);
                break;
            }
        }
    }
}

/// A key's entry in etcd's answer, with a value of about so many bytes.
fn entry(key: &str, address: &str, bytes: usize) -> Msg {
    let name = "n".repeat(bytes);
    let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":"{{\"name\":\"{name}\"}}"}}"#);
    Msg::new().bytes(1, key).int(2, 3).int(3, 3).bytes(5, value)
}

/// The addresses that MemberList tells of.
async fn told(scene: &Scene) -> Vec<String> {
    let reply = scene.client.unary(MEMBER_LIST, "", &[]).await;
    let members = pb::fields(reply.only());
    let address = |member: &pb::Value| match member {
        pb::Value::Bytes(member) => String::from_utf8(pb::bytes(member, &[4])).expect("text"),
        other => panic!("no member: {other:?}"),
    };
    members.iter().map(|(_, member)| address(member)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_too_large_to_be_held_is_translated_in_a_namespace() {
    let flags = [&FLAGS[..], &["--namespace=ns/"]].concat();
    let mut scene = Scene::with(1, &flags).await;
    let mut watch = None;
    let mut put = false;
    for _ in 0..100 {
        if watch.is_some() && put {
            break;
        }
        let mut call = scene.etcd.next().await;
        let message = call.message().await.expect("a request");
        match call.path() {
            RANGE => {
                assert_eq!(pb::bytes(&message, &[1]), b"ns/p/");
                let mut answer = Msg::new().msg(1, Msg::new().int(3, 7));
                answer = answer.msg(2, entry("ns/p/a:1", "a:1", 10));
                for n in 0..200 {
                    let address = format!("b:{n}");
                    answer = answer.msg(2, entry(&format!("ns/p/{address}"), &address, 1_500));
                }
                call.respond(answer);
            }
            WATCH => {
                call.headers(&[]);
                call.send(Msg::new().int(2, 1).int(3, 1));
                watch = Some(call);
            }
            GRANT => call.respond(Msg::new().int(2, 7).int(3, 6)),
            PUT => {
                call.respond(Msg::new());
                put = true;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(told(&scene).await.len(), 201);
    let kv = Msg::new().bytes(1, "ns/p/b:7").int(3, 8);
    let event = Msg::new().int(1, 1).msg(2, kv);
    let header = Msg::new().int(3, 8);
    let mut watch = watch.expect("seen above");
    watch.send(Msg::new().msg(1, header).int(2, 1).msg(11, event));
    // Its own key was seen, so that it is not put again.
    if let Some(more) = scene.etcd.next_within(Duration::from_millis(1_500)).await {
        assert_eq!(more.path(), RENEW);
    }
    let told = told(&scene).await;
    assert!(!told.contains(&"b:7".to_owned()));
    assert_eq!(told.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_are_large_and_many_hide_no_proxy() {
    let mut scene = Scene::with(1, &FLAGS).await;
    let keys: Vec<(String, Msg)> = (0..12)
        .map(|n| match n {
            // No client may write more at once.
            0..10 => (format!("p/{n}"), entry(&format!("p/{n}"), "x:1", 1_500_000)),
            n => (
                format!("p/z{n}"),
                entry(&format!("p/z{n}"), &format!("z:{n}"), 10),
            ),
        })
        .collect();
    let mut watched = false;
    for _ in 0..100 {
        if watched {
            break;
        }
        let mut call = scene.etcd.next().await;
        let message = call.message().await.expect("a request");
        match call.path() {
            RANGE => {
                let from = String::from_utf8(pb::bytes(&message, &[1])).expect("text");
                let limit = pb::int(&message, &[3]) as usize;
                let all: Vec<_> = keys.iter().filter(|(key, _)| *key >= from).collect();
                let mut answer = Msg::new().msg(1, Msg::new().int(3, 7));
                for (_, kv) in all.iter().take(limit) {
                    answer = answer.msg(2, kv.clone());
                }
                call.respond(answer.int(3, i64::from(all.len() > limit)));
            }
            WATCH => {
                assert_eq!(pb::int(&message, &[1, 3]), 8);
                call.headers(&[]);
                call.send(Msg::new().int(2, 1).int(3, 1));
                watched = true;
            }
            GRANT => call.respond(Msg::new().int(2, 7).int(3, 6)),
            _ => call.respond(Msg::new()),
        }
    }
    assert_eq!(told(&scene).await, ["z:10", "z:11"]);
}
