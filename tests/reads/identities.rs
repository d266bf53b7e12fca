//! Tests of reads by several users. Each user gets the response that etcd would send, and never the
//! response to another user (R4).

use std::time::{Duration, Instant};

use crate::support::auth_users::{self, login};
use crate::support::cluster::{Cluster, ROOT_PASSWORD, stdout_of};
use crate::support::grpc::{Client, Metadata, Reply};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::{NEWEST, versions};
use crate::{LONG, RANGE, hits, put_as, range, serializable, values};

/// Starts etcd with the users `alice` and `eve` for keys below `a/`, and `bob` for keys below `b/`.
fn scene(version: &str, flags: &[&str]) -> (Cluster, Proxy) {
    let cluster = Cluster::builder(version).auth().start();
    for (user, own) in [("alice", "a/"), ("bob", "b/"), ("eve", "a/")] {
        auth_users::add(&cluster, user, &[own]);
    }
    let proxy = Proxy::start(&cluster, flags);
    (cluster, proxy)
}

async fn read_as(client: &Client, key: &str, metadata: Metadata<'_>) -> Reply {
    client
        .unary(RANGE, serializable(range(key, "")), metadata)
        .await
}

fn outcome(reply: &Reply) -> (Option<u32>, String) {
    (reply.code(), reply.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_not_returned_to_another_user() {
    for version in versions() {
        let (cluster, proxy) = scene(version, &[LONG]);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let client = Client::connect(proxy.address()).await;
        let (alice, bob) = (login(&client, "alice").await, login(&client, "bob").await);
        put_as(&client, "a/k", "hers", &[("token", &alice)]).await;
        for _ in 0..3 {
            let reply = read_as(&client, "a/k", &[("token", &alice)]).await;
            assert_eq!(values(&reply), ["hers"], "{version}");
        }
        let before = hits(&proxy);
        assert!(before >= 1.0, "{version}: the response was not cached");
        let others: [Metadata<'_>; 4] = [
            &[("token", &bob)],
            &[],
            &[("token", "no.1")],
            &[("token", "")],
        ];
        for other in others {
            for request in [range("a/k", ""), serializable(range("a/k", ""))] {
                let expected = direct.unary(RANGE, request.clone(), other).await;
                assert_ne!(expected.code(), Some(0), "{version} {other:?}");
                for _ in 0..3 {
                    let reply = client.unary(RANGE, request.clone(), other).await;
                    assert_eq!(outcome(&reply), outcome(&expected), "{version} {other:?}");
                }
            }
        }
        assert_eq!(hits(&proxy), before, "{version}");
    }
}

/// While many clients of one user share a read, another user with the same request gets its own
/// response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_different_users_are_not_coalesced() {
    let (_cluster, proxy) = scene(NEWEST, &[]);
    let client = Client::connect(proxy.address()).await;
    let (alice, bob) = (login(&client, "alice").await, login(&client, "bob").await);
    put_as(&client, "a/k", "hers", &[("token", &alice)]).await;
    let mut clients = Vec::new();
    for n in 0..30 {
        let client = Client::connect(proxy.address()).await;
        let (token, code) = match n % 3 {
            0 | 1 => (alice.clone(), 0),
            _ => (bob.clone(), 7),
        };
        clients.push(tokio::spawn(async move {
            for _ in 0..100 {
                let reply = client
                    .unary(RANGE, range("a/k", ""), &[("token", &token)])
                    .await;
                assert_eq!(reply.code(), Some(code), "{reply:?}");
            }
        }));
    }
    for client in clients {
        client.await.expect("each client gets its own response");
    }
}

/// The tokens of one user share cached responses. Each token is checked separately.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_is_shared_by_the_tokens_of_one_user() {
    let (_cluster, proxy) = scene(NEWEST, &[LONG]);
    let client = Client::connect(proxy.address()).await;
    let first = login(&client, "alice").await;
    put_as(&client, "a/k", "hers", &[("token", &first)]).await;
    read_as(&client, "a/k", &[("token", &first)]).await;
    let (before, second) = (hits(&proxy), login(&client, "alice").await);
    assert_ne!(first, second);
    let other = Client::connect(proxy.address()).await;
    let reply = read_as(&other, "a/k", &[("token", &second)]).await;
    assert_eq!(values(&reply), ["hers"]);
    assert_eq!(hits(&proxy), before + 1.0);
    // Another user with the same permissions has separate entries.
    let eve = login(&client, "eve").await;
    read_as(&other, "a/k", &[("token", &eve)]).await;
    assert_eq!(hits(&proxy), before + 1.0);
}

/// Reads in a tight loop until etcd refuses. Returns the elapsed time.
async fn until_refused(client: &Client, metadata: Metadata<'_>) -> Duration {
    let begun = Instant::now();
    loop {
        let reply = read_as(client, "a/k", metadata).await;
        if reply.code() != Some(0) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "not refused");
    }
}

/// A revocation through this proxy has effect at once. One elsewhere has effect within the age
/// limit, also for a key that is read all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_permission_ends_cached_reads() {
    for through_proxy in [true, false] {
        let (cluster, proxy) = scene(NEWEST, &[]);
        let client = Client::connect(proxy.address()).await;
        let (root, alice) = (login(&client, "root").await, login(&client, "alice").await);
        let hers: Metadata<'_> = &[("token", &alice)];
        put_as(&client, "a/k", "hers", hers).await;
        // Read long enough for a watch to back the entry.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            assert_eq!(values(&read_as(&client, "a/k", hers).await), ["hers"]);
        }
        assert!(hits(&proxy) > 100.0);
        if through_proxy {
            let revoke = Msg::new()
                .bytes(1, "role-alice")
                .bytes(2, "a/")
                .bytes(3, "a0");
            let path = "/etcdserverpb.Auth/RoleRevokePermission";
            let reply = client.unary(path, revoke, &[("token", &root)]).await;
            assert_eq!(reply.code(), Some(0), "{reply:?}");
            let reply = read_as(&client, "a/k", hers).await;
            assert_eq!(reply.code(), Some(7), "{reply:?}");
        } else {
            let revoke = ["role", "revoke-permission", "role-alice", "a/", "--prefix"];
            stdout_of(&cluster.etcdctl(&revoke));
            let took = until_refused(&client, hers).await;
            // The age limit is a second. The test allows more for a busy machine.
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
    }
}

/// Responses cached without authentication are not returned after it has been enabled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_reads_are_refused_after_auth_is_enabled() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let client = Client::connect(proxy.address()).await;
    put_as(&client, "a/k", "all", &[]).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(values(&read_as(&client, "a/k", &[]).await), ["all"]);
    }
    for args in [
        &["user", "add", &format!("root:{ROOT_PASSWORD}")][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        stdout_of(&cluster.etcdctl(args));
    }
    let took = until_refused(&client, &[]).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}
