//! Tests that every method of every service has the same result through the proxy as without it:
//! responses, status codes and texts, headers and trailers, and their placement (P1, P5, P6).
//!
//! One script of calls runs against two new clusters of one member, directly at one and through the
//! proxy at the other. Both start at the same revision and receive the same calls. So all results
//! are equal, except for cluster ids and random values, which are removed by field number before
//! the comparison. Calls without an effect then run in both ways on the *same* cluster, and are
//! compared without any removal.

mod auth;
mod authorities;
mod cluster;
mod compression;
mod kv;
mod lease;
mod locks;
mod maintenance;
mod malformed;
mod recording;
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
async fn every_method_equals_the_newest_etcd() {
    let called = compare(NEWEST, false).await;
    let missing: Vec<&str> = method::all()
        .iter()
        .map(|method| method.path)
        // The services in the response are the proxy's own: see tests/health/calls.rs.
        .filter(|path| *path != "/grpc.health.v1.Health/List" && !called.contains(*path))
        .collect();
    assert!(missing.is_empty(), "the script lacks {missing:?}");
}

#[tokio::test]
async fn every_method_equals_the_middle_etcd() {
    compare(versions()[1], false).await;
}

#[tokio::test]
async fn every_method_equals_the_oldest_etcd() {
    compare(versions()[2], false).await;
}

#[tokio::test]
async fn every_compressed_call_equals_the_newest_etcd() {
    compare(NEWEST, true).await;
}

#[tokio::test]
async fn every_compressed_call_equals_the_middle_etcd() {
    compare(versions()[1], true).await;
}

#[tokio::test]
async fn every_compressed_call_equals_the_oldest_etcd() {
    compare(versions()[2], true).await;
}

/// Runs the script on both sides and compares the results. With `gzip`, all messages of the client
/// are compressed. Returns the called paths.
async fn compare(version: &str, gzip: bool) -> BTreeSet<String> {
    let (one, other) = (Cluster::start(version, 1), Cluster::start(version, 1));
    // The flags disable the proxy's own size limit and member list.
    let proxy = Proxy::start(
        &other,
        &["--max-send-bytes=8388608", "--advertise-client-url="],
    );
    let connect = async |address: &str| {
        let client = Client::connect(address).await;
        let client = if gzip { client.with_gzip() } else { client };
        Recorder::new(client, version)
    };
    let mut direct = connect(&one.endpoint(0)).await;
    let mut proxied = connect(proxy.address()).await;
    run(&mut direct).await;
    run(&mut proxied).await;
    let mut found = differences(&direct, &proxied);

    let mut direct = connect(&other.endpoint(0)).await;
    proxied.clear();
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

async fn run(recorder: &mut Recorder) {
    kv::run(recorder).await;
    lease::run(recorder).await;
    watch::run(recorder).await;
    locks::run(recorder).await;
    cluster::run(recorder).await;
    maintenance::run(recorder).await;
    auth::run(recorder).await;
    malformed::run(recorder).await;
    compression::run(recorder).await;
}

/// Calls without an effect. Their responses name the cluster.
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
