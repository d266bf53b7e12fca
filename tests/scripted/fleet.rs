//! Tests of the service registration with lost responses, and with a lease that expires (N4).

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

/// Returns the next call of the registration. The registry reader gets responses without other
/// proxies.
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
                // The watch starts after the revision of the read, which returned no key.
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
async fn lease_with_a_lost_grant_response_is_used() {
    let mut scene = Scene::with(2, &FLAGS).await;
    let mut watches = Vec::new();
    let mut first = next(&mut scene, &mut watches).await;
    assert_eq!(first.path(), GRANT);
    assert_eq!(first.metadata("hasleader"), ["true"]);
    let request = first.message().await.expect("a grant");
    let lease = pb::int(&request, &[2]);
    assert!(lease > 0);
    assert_eq!(pb::int(&request, &[1]), 6);
    first.reset(Reason::INTERNAL_ERROR);

    let mut second = next(&mut scene, &mut watches).await;
    assert_eq!(second.path(), GRANT);
    assert_eq!(second.message().await.expect("a grant"), request);
    let exists = "etcdserver: lease already exists";
    second.trailers_only(&[("grpc-status", "9"), ("grpc-message", exists)]);

    let mut put = next(&mut scene, &mut watches).await;
    assert_eq!(put.path(), PUT);
    let message = put.message().await.expect("a put");
    assert_eq!(pb::bytes(&message, &[1]), b"p/a:1");
    assert_eq!(pb::int(&message, &[3]), lease);
    put.respond("");

    // The key is neither in the read nor in an event, so the proxy puts it again a second later.
    let mut again = next(&mut scene, &mut watches).await;
    let mut renewals = 0;
    while again.path() == RENEW {
        // One request, and the end of the request stream.
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

    // The response to a renewal reports an expired lease.
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

/// Returns a key-value of etcd's response, with a value of about `bytes` bytes.
fn entry(key: &str, address: &str, bytes: usize) -> Msg {
    let name = "n".repeat(bytes);
    let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":"{{\"name\":\"{name}\"}}"}}"#);
    Msg::new().bytes(1, key).int(2, 3).int(3, 3).bytes(5, value)
}

/// Returns the addresses in the MemberList response.
async fn listed_addresses(scene: &Scene) -> Vec<String> {
    let reply = scene.client.unary(MEMBER_LIST, "", &[]).await;
    let members = pb::fields(reply.only());
    let address = |member: &pb::Value| match member {
        pb::Value::Bytes(member) => String::from_utf8(pb::bytes(member, &[4])).expect("text"),
        other => panic!("not a member: {other:?}"),
    };
    members.iter().map(|(_, member)| address(member)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registry_too_large_to_buffer_is_translated_in_a_namespace() {
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
                let mut response = Msg::new().msg(1, Msg::new().int(3, 7));
                response = response.msg(2, entry("ns/p/a:1", "a:1", 10));
                for n in 0..200 {
                    let address = format!("b:{n}");
                    let kv = entry(&format!("ns/p/{address}"), &address, 1_500);
                    response = response.msg(2, kv);
                }
                call.respond(response);
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
    assert_eq!(listed_addresses(&scene).await.len(), 201);
    let kv = Msg::new().bytes(1, "ns/p/b:7").int(3, 8);
    let event = Msg::new().int(1, 1).msg(2, kv);
    let header = Msg::new().int(3, 8);
    let mut watch = watch.expect("a watch call");
    watch.send(Msg::new().msg(1, header).int(2, 1).msg(11, event));
    // The read returned the proxy's own key, so it is not put again.
    if let Some(more) = scene.etcd.next_within(Duration::from_millis(1_500)).await {
        assert_eq!(more.path(), RENEW);
    }
    let listed = listed_addresses(&scene).await;
    assert!(!listed.contains(&"b:7".to_owned()));
    assert_eq!(listed.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_registry_values_hide_no_proxy() {
    let mut scene = Scene::with(1, &FLAGS).await;
    let keys: Vec<(String, Msg)> = (0..12)
        .map(|n| match n {
            // The largest value that a client can write.
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
                let mut response = Msg::new().msg(1, Msg::new().int(3, 7));
                for (_, kv) in all.iter().take(limit) {
                    response = response.msg(2, kv.clone());
                }
                call.respond(response.int(3, i64::from(all.len() > limit)));
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
    assert_eq!(listed_addresses(&scene).await, ["z:10", "z:11"]);
}
