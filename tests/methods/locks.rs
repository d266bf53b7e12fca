//! Calls of the Lock and Election services, which may block. Their errors have the code UNKNOWN,
//! regardless of the text.

use crate::recording::Recorder;
use crate::support::pb::{self, Msg};

const LEASE: i64 = 0x77;

pub(crate) async fn run(etcd: &mut Recorder) {
    etcd.unary(
        "Lease/LeaseGrant",
        "for a lock",
        Msg::new().int(1, 600).int(2, LEASE),
        0,
    )
    .await;
    lock(etcd).await;
    election(etcd).await;
    etcd.unary(
        "Lease/LeaseRevoke",
        "of a lock",
        Msg::new().int(1, LEASE),
        0,
    )
    .await;
}

async fn lock(etcd: &mut Recorder) {
    let lock = |lease| Msg::new().bytes(1, "lock").int(2, lease);
    let held = etcd
        .unary("v3lockpb.Lock/Lock", "free", lock(LEASE), 0)
        .await;
    let key = pb::bytes(held.only(), &[2]);
    etcd.unary("v3lockpb.Lock/Lock", "an unknown lease", lock(99), 2)
        .await;
    etcd.unary("v3lockpb.Lock/Unlock", "held", Msg::new().bytes(1, &key), 0)
        .await;
    etcd.unary("v3lockpb.Lock/Unlock", "free", Msg::new().bytes(1, &key), 0)
        .await;
    etcd.unary("v3lockpb.Lock/Unlock", "no key", Msg::new(), 2)
        .await;
}

async fn election(etcd: &mut Recorder) {
    let service = "v3electionpb.Election";
    let name = || Msg::new().bytes(1, "election");
    etcd.unary(&format!("{service}/Leader"), "no leader", name(), 2)
        .await;
    let campaign = name().int(2, LEASE).bytes(3, "first");
    let won = etcd
        .unary(&format!("{service}/Campaign"), "alone", campaign, 0)
        .await;
    let leader = pb::bytes(won.only(), &[2]);
    etcd.unary(&format!("{service}/Leader"), "elected", name(), 0)
        .await;
    let proclaim = Msg::new().bytes(1, &leader).bytes(2, "second");
    etcd.unary(
        &format!("{service}/Proclaim"),
        "as leader",
        proclaim.clone(),
        0,
    )
    .await;

    let path = format!("{service}/Observe");
    let mut observed = etcd.open(&path).await;
    observed.send(name()).await;
    observed.half_close();
    let seen = observed.next().await.expect("a leader");
    assert_eq!(pb::bytes(&seen, &[2, 5]), b"second");
    observed.cancel();
    etcd.record(&path, "a leader", observed.finish().await, None, &[]);

    let resign = Msg::new().bytes(1, &leader);
    etcd.unary(&format!("{service}/Resign"), "as leader", resign, 0)
        .await;
    etcd.unary(&format!("{service}/Proclaim"), "resigned", proclaim, 2)
        .await;
    let unknown = name().int(2, 99);
    etcd.unary(
        &format!("{service}/Campaign"),
        "an unknown lease",
        unknown,
        2,
    )
    .await;
}
