//! Calls of the Lease service: grant, list, time to live, keep-alive, revoke.

use crate::recording::Recorder;
use crate::support::pb::Msg;

const ID: i64 = 0x1234;

pub(crate) async fn run(etcd: &mut Recorder) {
    let grant = |ttl: i64, id: i64| Msg::new().int(1, ttl).int(2, id);
    etcd.unary("Lease/LeaseGrant", "with an id", grant(600, ID), 0)
        .await;
    etcd.unary("Lease/LeaseGrant", "the same id", grant(600, ID), 9)
        .await;
    etcd.unary("Lease/LeaseGrant", "too long", grant(9_000_000_001, 0), 11)
        .await;
    etcd.unary(
        "Lease/LeaseGrant",
        "shorter than etcd allows",
        grant(1, ID + 1),
        0,
    )
    .await;
    let random = etcd
        .masked("Lease/LeaseGrant", "any id", grant(60, 0), 0, &[&[2]])
        .await;
    let random = crate::support::pb::int(random.only(), &[2]);
    let put = Msg::new().bytes(1, "leased").bytes(2, "1").int(3, ID);
    etcd.unary("KV/Put", "with a lease", put, 0).await;

    // The remaining seconds may differ between the two clusters.
    let ttl: &[&[u32]] = &[&[3]];
    let lease = |id: i64| Msg::new().int(1, id);
    etcd.masked("Lease/LeaseTimeToLive", "a lease", lease(ID), 0, ttl)
        .await;
    etcd.masked(
        "Lease/LeaseTimeToLive",
        "its keys",
        lease(ID).int(2, 1),
        0,
        ttl,
    )
    .await;
    etcd.unary("Lease/LeaseTimeToLive", "an unknown lease", lease(99), 0)
        .await;
    keep_alive(etcd).await;
    etcd.unary("Lease/LeaseRevoke", "the random one", lease(random), 0)
        .await;
    etcd.unary("Lease/LeaseRevoke", "a short one", lease(ID + 1), 0)
        .await;
    etcd.unary("Lease/LeaseLeases", "all", Msg::new(), 0).await;
    etcd.unary("Lease/LeaseRevoke", "with a key", lease(ID), 0)
        .await;
    etcd.unary("Lease/LeaseRevoke", "an unknown lease", lease(ID), 5)
        .await;
    etcd.unary(
        "KV/Range",
        "a key of a revoked lease",
        Msg::new().bytes(1, "leased"),
        0,
    )
    .await;
}

async fn keep_alive(etcd: &mut Recorder) {
    let path = "Lease/LeaseKeepAlive";
    let mut call = etcd.open(path).await;
    for id in [ID, 99, ID, ID] {
        call.send(Msg::new().int(1, id)).await;
        assert!(
            call.next().await.is_some(),
            "a heartbeat without a response"
        );
    }
    call.half_close();
    etcd.record(path, "one by one", call.finish().await, Some(0), &[]);

    // Half-close is not a cancel (P4): the responses still arrive.
    let mut call = etcd.open(path).await;
    for id in [ID, 99, ID] {
        call.send(Msg::new().int(1, id)).await;
    }
    call.half_close();
    let mut reply = call.finish().await;
    assert_eq!(reply.messages.len(), 3, "{reply:?}");
    // The order is defined only within each lease (L2).
    reply.messages.sort();
    etcd.record(path, "at once, then half-closed", reply, Some(0), &[]);

    let mut call = etcd.open(path).await;
    call.half_close();
    etcd.record(path, "nothing sent", call.finish().await, Some(0), &[]);
}
