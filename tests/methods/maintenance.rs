//! Calls of the Maintenance service and of the health service.

use crate::recording::Recorder;
use crate::support::pb::{self, Msg};

pub(crate) async fn run(etcd: &mut Recorder) {
    // Sizes, ids and raft indexes differ between the clusters.
    let own: &[&[u32]] = &[&[3], &[4], &[5], &[7], &[9]];
    etcd.masked("Maintenance/Status", "a leader", Msg::new(), 0, own)
        .await;
    etcd.unary("Maintenance/HashKV", "now", Msg::new(), 0).await;
    etcd.unary(
        "Maintenance/HashKV",
        "at a revision",
        Msg::new().int(1, 20),
        0,
    )
    .await;
    etcd.unary("Maintenance/HashKV", "compacted", Msg::new().int(1, 2), 11)
        .await;
    etcd.unary(
        "Maintenance/HashKV",
        "in the future",
        Msg::new().int(1, 1 << 40),
        11,
    )
    .await;
    etcd.masked("Maintenance/Hash", "of all", Msg::new(), 0, &[&[2]])
        .await;
    etcd.unary("Maintenance/Defragment", "a member", Msg::new(), 0)
        .await;
    etcd.unary(
        "Maintenance/MoveLeader",
        "nowhere",
        Msg::new().int(1, 99),
        9,
    )
    .await;
    let downgrade = |action, version: &str| Msg::new().int(1, action).bytes(2, version);
    for (case, action, version, code) in [
        ("possible", 0, "3.6.0", 0),
        ("too far", 0, "3.4.0", 3),
        ("no version", 0, "old", 3),
        ("none to cancel", 2, "", 0),
    ] {
        etcd.unary(
            "Maintenance/Downgrade",
            case,
            downgrade(action, version),
            code,
        )
        .await;
    }
    alarm(etcd).await;
    snapshot(etcd).await;
    health(etcd).await;
}

async fn alarm(etcd: &mut Recorder) {
    let members: &[&[u32]] = &[&[2, 1]];
    let alarm = |action: i64, kind: i64| Msg::new().int(1, action).int(3, kind);
    etcd.unary("Maintenance/Alarm", "none", alarm(0, 0), 0)
        .await;
    etcd.masked(
        "Maintenance/Alarm",
        "raise NOSPACE",
        alarm(1, 1),
        0,
        members,
    )
    .await;
    etcd.masked("Maintenance/Alarm", "one", alarm(0, 0), 0, members)
        .await;
    let put = Msg::new().bytes(1, "a").bytes(2, "no space");
    etcd.unary("KV/Put", "without space", put, 8).await;
    etcd.masked(
        "Maintenance/Alarm",
        "lower NOSPACE",
        alarm(2, 1),
        0,
        members,
    )
    .await;
    etcd.unary("Maintenance/Alarm", "none again", alarm(0, 0), 0)
        .await;
}

/// Compares snapshots by the sum of their lengths: the blobs differ between the clusters.
async fn snapshot(etcd: &mut Recorder) {
    let path = "Maintenance/Snapshot";
    let mut call = etcd.open(path).await;
    call.send(Msg::new()).await;
    call.half_close();
    let mut reply = call.finish().await;
    let mut rest = None;
    for message in &reply.messages {
        let blob = pb::bytes(message, &[3]).len() as i64;
        let remaining = pb::int(message, &[2]);
        // The remaining bytes do not include the hash at the end.
        assert!(
            rest.is_none_or(|rest| rest - blob == remaining || blob == 32),
            "{path}: a gap"
        );
        rest = Some(remaining);
    }
    assert_eq!(
        rest,
        Some(0),
        "{path}: {} bytes are missing",
        rest.unwrap_or_default()
    );
    reply.messages.clear();
    etcd.record(path, "all", reply, Some(0), &[]);
}

async fn health(etcd: &mut Recorder) {
    let check = "grpc.health.v1.Health/Check";
    etcd.unary(check, "of all", Msg::new(), 0).await;
    etcd.unary(
        check,
        "of an unknown service",
        Msg::new().bytes(1, "none"),
        5,
    )
    .await;
    let path = "grpc.health.v1.Health/Watch";
    let mut call = etcd.open(path).await;
    call.send(Msg::new()).await;
    call.half_close();
    call.next().await.expect("a first state");
    call.cancel();
    etcd.record(path, "the first state", call.finish().await, None, &[]);
}
