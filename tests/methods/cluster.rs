//! Calls of the Cluster service. A learner is added and removed. It never starts, so the voter
//! keeps its quorum.

use crate::recording::Recorder;
use crate::support::pb::{self, Msg};

/// Fields of members that are masked: ids are random, and addresses differ between the clusters.
const MEMBERS: &[&[u32]] = &[&[2], &[3]];

pub(crate) async fn run(etcd: &mut Recorder) {
    let learner = |url: &str| Msg::new().bytes(1, url).int(2, 1);
    let add = "Cluster/MemberAdd";
    let added = etcd
        .masked(add, "a learner", learner("http://127.0.0.1:1"), 0, MEMBERS)
        .await;
    let id = pb::int(added.only(), &[2, 1]);
    etcd.unary(add, "the same address", learner("http://127.0.0.1:1"), 9)
        .await;
    etcd.unary(add, "not an address", learner("127.0.0.1"), 3)
        .await;

    let linearizable = Msg::new().int(1, 1);
    etcd.masked(
        "Cluster/MemberList",
        "linearizable",
        linearizable,
        0,
        MEMBERS,
    )
    .await;
    etcd.masked("Cluster/MemberList", "local", Msg::new(), 0, MEMBERS)
        .await;

    let update = |id: i64| Msg::new().int(1, id).bytes(2, "http://127.0.0.1:2");
    etcd.masked("Cluster/MemberUpdate", "an address", update(id), 0, MEMBERS)
        .await;
    etcd.unary("Cluster/MemberUpdate", "an unknown member", update(99), 5)
        .await;
    let member = |id: i64| Msg::new().int(1, id);
    etcd.unary("Cluster/MemberPromote", "a learner behind", member(id), 9)
        .await;
    etcd.unary("Cluster/MemberPromote", "an unknown member", member(99), 5)
        .await;
    etcd.masked(
        "Cluster/MemberRemove",
        "the learner",
        member(id),
        0,
        MEMBERS,
    )
    .await;
    etcd.unary("Cluster/MemberRemove", "the learner again", member(id), 5)
        .await;
}
