//! A registration whose answers are lost, and a lease that is gone when it is to be renewed (N4).

use h2::Reason;

use crate::support::pb::{self, Msg};
use crate::support::scripted_etcd::Incoming;
use crate::{PUT, RANGE, Scene};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const RENEW: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

const FLAGS: [&str; 4] = [
    "--workers=1",
    "--advertise-client-url=a:1",
    "--resolver-prefix=p",
    "--resolver-ttl=6",
];

/// The next call of the registration. The other task is told that nobody else is there.
async fn next(scene: &mut Scene, watches: &mut Vec<Incoming>) -> Incoming {
    loop {
        let mut call = scene.etcd.next().await;
        match call.path() {
            RANGE => {
                call.body().await;
                call.answer(Msg::new().msg(1, Msg::new().int(3, 7)));
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
    put.answer("");

    // The key was not in what was read, and no event tells of it: a second later it is put again.
    let mut again = next(&mut scene, &mut watches).await;
    let mut renewals = 0;
    while again.path() == RENEW {
        // One request, and the end of the stream.
        let body = again.body().await;
        assert_eq!(pb::int(&body[5..], &[1]), lease);
        again.answer(Msg::new().int(2, lease).int(3, 6));
        renewals += 1;
        again = next(&mut scene, &mut watches).await;
    }
    assert!(renewals <= 2, "{renewals}");
    assert_eq!(again.path(), PUT);
    assert_eq!(again.message().await.expect("a put"), message);
    again.answer("");

    // It is said to be gone when it is to be renewed.
    loop {
        let mut call = next(&mut scene, &mut watches).await;
        match call.path() {
            RENEW => {
                call.body().await;
                call.answer(Msg::new().int(2, lease));
            }
            PUT => call.answer(""),
            path => {
                assert_eq!(path, GRANT);
                let another = pb::int(&call.message().await.expect("a grant"), &[2]);
                assert_ne!(another, lease);
                break;
            }
        }
    }
}
