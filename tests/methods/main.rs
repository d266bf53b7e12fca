//! Every method of every service gives through the proxy what it gives directly: answers, status
//! codes and texts, headers and trailers and which of the two carry them (P1, P5, P6).
//!
//! One script of calls is played to two fresh clusters of one member, to one directly and to the
//! other through the proxy. Both start at the same revision and see the same calls, so all must be
//! the same but what names the cluster or is random: that is taken out by its field number before
//! the comparison. Calls that change nothing are then made both ways on the *same* cluster, where
//! nothing is taken out.

mod auth;
mod broken;
mod cluster;
mod kv;
mod lease;
mod maintenance;
mod recording;
mod sync;
mod watch;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use etcd_edge::wire::method;
use recording::{Recorder, differences};
use support::cluster::Cluster;
use support::grpc::Client;
use support::pb::Msg;
use support::proxy::Proxy;
use support::release::{NEWEST, versions};

#[tokio::test]
async fn every_method_is_as_without_the_proxy_on_the_newest_etcd() {
    let seen = play_both(NEWEST).await;
    let missing: Vec<&str> = method::all()
        .iter()
        .map(|method| method.path)
        // The services named there are the proxy's own: see tests/health/calls.rs.
        .filter(|path| *path != "/grpc.health.v1.Health/List" && !seen.contains(*path))
        .collect();
    assert!(missing.is_empty(), "the script lacks {missing:?}");
}

#[tokio::test]
async fn every_method_is_as_without_the_proxy_on_the_middle_etcd() {
    play_both(versions()[1]).await;
}

#[tokio::test]
async fn every_method_is_as_without_the_proxy_on_the_oldest_etcd() {
    play_both(versions()[2]).await;
}

/// Plays and compares; the paths that were called.
async fn play_both(version: &str) -> BTreeSet<String> {
    let (one, other) = (Cluster::start(version, 1), Cluster::start(version, 1));
    // Etcd's own limits are to be seen, not the proxy's, and etcd's own member list.
    let proxy = Proxy::start(
        &other,
        &["--max-send-bytes=8388608", "--advertise-client-url="],
    );
    let mut direct = Recorder::new(Client::connect(&one.endpoint(0)).await, version);
    let mut proxied = Recorder::new(Client::connect(proxy.address()).await, version);
    play(&mut direct).await;
    play(&mut proxied).await;
    let mut found = differences(&direct, &proxied);

    let mut direct = Recorder::new(Client::connect(&other.endpoint(0)).await, version);
    proxied.forget();
    for recorder in [&mut direct, &mut proxied] {
        read(recorder).await;
    }
    found.extend(differences(&direct, &proxied));
    assert!(
        found.is_empty(),
        "etcd {version}, {} differences:\n{}",
        found.len(),
        found.join("\n")
    );
    proxied.paths().clone()
}

async fn play(recorder: &mut Recorder) {
    kv::play(recorder).await;
    lease::play(recorder).await;
    watch::play(recorder).await;
    sync::play(recorder).await;
    cluster::play(recorder).await;
    maintenance::play(recorder).await;
    auth::play(recorder).await;
    broken::play(recorder).await;
}

/// What changes nothing and names its cluster.
async fn read(recorder: &mut Recorder) {
    let all = Msg::new().bytes(1, [0]).bytes(2, [0]);
    for (path, request) in [
        ("KV/Range", all.clone()),
        ("KV/Txn", Msg::new().msg(2, Msg::new().msg(1, all))),
        ("Lease/LeaseLeases", Msg::new()),
        ("Cluster/MemberList", Msg::new()),
        ("Cluster/MemberList", Msg::new().int(1, 1)),
        ("Maintenance/Alarm", Msg::new()),
        ("Maintenance/Hash", Msg::new()),
        ("Maintenance/HashKV", Msg::new()),
        ("Auth/AuthStatus", Msg::new()),
        ("Auth/UserList", Msg::new()),
        ("Auth/RoleList", Msg::new()),
    ] {
        recorder.exact(path, "on the same cluster", request).await;
    }
}
