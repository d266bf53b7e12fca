//! Heartbeats of several users: each receives the response that etcd would send (L4, R4).

use crate::support::auth_users::{self, login};
use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, Reply};
use crate::support::heartbeats::{EtcdKeepAlive, KEEP_ALIVE, heartbeat, renew};
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::{NEWEST, versions};

/// Starts a cluster in which `alice` has the prefix `a/` and `bob` has `b/`.
fn scene(version: &str) -> (Cluster, Proxy) {
    let cluster = Cluster::builder(version).auth().start();
    auth_users::add(&cluster, "alice", &["a/"]);
    auth_users::add(&cluster, "bob", &["b/"]);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    (cluster, proxy)
}

async fn grant(client: &Client, token: &str) -> i64 {
    let request = Msg::new().int(1, 60);
    let token = &[("token", token)];
    let reply = client
        .unary("/etcdserverpb.Lease/LeaseGrant", request, token)
        .await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    pb::int(reply.only(), &[2])
}

async fn put(client: &Client, token: &str, key: &str, lease: i64) {
    crate::support::heartbeats::put_with_lease(client, key, lease, &[("token", token)]).await;
}

/// Sends one heartbeat, half-closes, and returns everything received.
async fn heartbeat_once(client: &Client, lease: i64, metadata: &[(&str, &str)]) -> Reply {
    let mut call = client.call(KEEP_ALIVE, metadata).await;
    call.send(heartbeat(lease)).await;
    call.half_close();
    call.finish().await
}

fn summary(reply: &Reply) -> (Option<u32>, String, Vec<i64>) {
    let ttls = reply.messages.iter().map(|m| pb::int(m, &[3]));
    (reply.code(), reply.message().to_owned(), ttls.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_heartbeat_affects_no_other_stream() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let client = Client::connect(proxy.address()).await;
        let alice = login(&client, "alice").await;
        let again = login(&client, "alice").await;
        let bob = login(&client, "bob").await;
        let (hers, his) = (grant(&client, &alice).await, grant(&client, &bob).await);
        put(&client, &alice, "a/1", hers).await;
        put(&client, &bob, "b/1", his).await;
        let mut good = client.call(KEEP_ALIVE, &[("token", &again)]).await;
        assert_eq!(renew(&mut good, hers).await, 60);
        for (lease, token) in [(hers, &alice), (his, &alice), (his, &bob), (hers, &bob)] {
            let metadata = [("token", token.as_str())];
            let expected = heartbeat_once(&direct, lease, &metadata).await;
            let reply = heartbeat_once(&client, lease, &metadata).await;
            assert_eq!(summary(&reply), summary(&expected), "{version}");
            // Another client stream of the same identity is not affected.
            assert_eq!(renew(&mut good, hers).await, 60, "{version}");
        }
        // Twenty refused heartbeats at the same time, each on its own client stream.
        let mut calls = Vec::new();
        for _ in 0..20 {
            let mut call = client.call(KEEP_ALIVE, &[("token", &alice)]).await;
            call.send(heartbeat(his)).await;
            call.half_close();
            calls.push(call);
        }
        assert_eq!(renew(&mut good, hers).await, 60, "{version}");
        let expected = heartbeat_once(&direct, his, &[("token", &alice)]).await;
        for call in calls {
            assert_eq!(
                summary(&call.finish().await),
                summary(&expected),
                "{version}"
            );
        }
        assert_eq!(renew(&mut good, hers).await, 60, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_tokens_get_etcds_own_error() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let client = Client::connect(proxy.address()).await;
        let alice = login(&client, "alice").await;
        let hers = grant(&client, &alice).await;
        put(&client, &alice, "a/1", hers).await;
        let mut good = client.call(KEEP_ALIVE, &[("token", &alice)]).await;
        assert_eq!(renew(&mut good, hers).await, 60);
        for metadata in [
            &[][..],
            &[("token", "nonsense")],
            &[("token", "abcdefghijklmnop.17")],
            &[("authorization", "Bearer nonsense")],
        ] {
            let expected = heartbeat_once(&direct, hers, metadata).await;
            let reply = heartbeat_once(&client, hers, metadata).await;
            assert_eq!(
                summary(&reply),
                summary(&expected),
                "{version}: {metadata:?}"
            );
            assert_eq!(renew(&mut good, hers).await, 60, "{version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_share_a_stream_per_user() {
    let (cluster, proxy) = scene(NEWEST);
    let client = Client::connect(proxy.address()).await;
    let mut calls = Vec::new();
    for user in ["alice", "bob"] {
        for _ in 0..10 {
            let token = login(&client, user).await;
            let lease = grant(&client, &token).await;
            let other = Client::connect(proxy.address()).await;
            let mut call = other.call(KEEP_ALIVE, &[("token", &token)]).await;
            assert_eq!(renew(&mut call, lease).await, 60);
            calls.push((call, lease, token));
        }
    }
    EtcdKeepAlive::wait_streams(&cluster, 2);
    // The stream survives when the client with the stream's token leaves.
    for (mut call, lease, _) in calls.drain(..).rev().step_by(2) {
        assert_eq!(renew(&mut call, lease).await, 60);
    }
    // A changed password invalidates all tokens of the user at etcd; the client receives that
    // error.
    let token = login(&client, "alice").await;
    let lease = grant(&client, &token).await;
    put(&client, &token, "a/1", lease).await;
    let mut hers = client.call(KEEP_ALIVE, &[("token", &token)]).await;
    assert_eq!(renew(&mut hers, lease).await, 60);
    let token = login(&client, "bob").await;
    let his = grant(&client, &token).await;
    let mut other = client.call(KEEP_ALIVE, &[("token", &token)]).await;
    assert_eq!(renew(&mut other, his).await, 60);
    let change = Msg::new().bytes(1, "alice").bytes(2, "other");
    let root = login(&client, "root").await;
    let reply = client
        .unary(
            "/etcdserverpb.Auth/UserChangePassword",
            change,
            &[("token", &root)],
        )
        .await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
    hers.send(heartbeat(lease)).await;
    let reply = hers.finish().await;
    assert_eq!(reply.code(), Some(16), "{reply:?}");
    assert_eq!(reply.message(), "etcdserver: invalid auth token");
    assert_eq!(renew(&mut other, his).await, 60);
}
