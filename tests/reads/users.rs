//! Reads of several users: each gets what etcd would give it, and nobody what another was given (R4).

use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, ROOT_PASSWORD, stdout_of};
use crate::support::grpc::{Client, Metadata, Reply};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::{NEWEST, versions};
use crate::support::users::{self, login};
use crate::{LONG, RANGE, hits, put_as, range, serializable, values};

/// `alice` and `eve` may do all below `a/`, `bob` below `b/`.
fn scene(version: &str, flags: &[&str]) -> (Cluster, Proxy) {
    let cluster = Cluster::builder(version).auth().start();
    for (user, own) in [("alice", "a/"), ("bob", "b/"), ("eve", "a/")] {
        users::add(&cluster, user, &[own]);
    }
    let proxy = Proxy::start(&cluster, flags);
    (cluster, proxy)
}

async fn read_as(client: &Client, key: &str, metadata: Metadata<'_>) -> Reply {
    client
        .unary(RANGE, serializable(range(key, "")), metadata)
        .await
}

fn gist(reply: &Reply) -> (Option<u32>, String) {
    (reply.code(), reply.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_crosses() {
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
        let kept = hits(&proxy);
        assert!(kept >= 1.0, "{version}: nothing was kept");
        let others: [Metadata<'_>; 4] = [
            &[("token", &bob)],
            &[],
            &[("token", "no.1")],
            &[("token", "")],
        ];
        for other in others {
            for question in [range("a/k", ""), serializable(range("a/k", ""))] {
                let told = direct.unary(RANGE, question.clone(), other).await;
                assert_ne!(told.code(), Some(0), "{version} {other:?}");
                for _ in 0..3 {
                    let given = client.unary(RANGE, question.clone(), other).await;
                    assert_eq!(gist(&given), gist(&told), "{version} {other:?}");
                }
            }
        }
        assert_eq!(hits(&proxy), kept, "{version}");
    }
}

/// While many of one user share a read, others who ask the same are told what is theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shared_is_shared_by_one_user() {
    let (_cluster, proxy) = scene(NEWEST, &[]);
    let client = Client::connect(proxy.address()).await;
    let (alice, bob) = (login(&client, "alice").await, login(&client, "bob").await);
    put_as(&client, "a/k", "hers", &[("token", &alice)]).await;
    let mut crowd = Vec::new();
    for n in 0..30 {
        let client = Client::connect(proxy.address()).await;
        let (token, code) = match n % 3 {
            0 | 1 => (alice.clone(), 0),
            _ => (bob.clone(), 7),
        };
        crowd.push(tokio::spawn(async move {
            for _ in 0..100 {
                let reply = client
                    .unary(RANGE, range("a/k", ""), &[("token", &token)])
                    .await;
                assert_eq!(reply.code(), Some(code), "{reply:?}");
            }
        }));
    }
    for client in crowd {
        client.await.expect("each is told what is his");
    }
}

/// One user's logins have their answers in common; each is checked for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_what_his_other_login_was_given() {
    let (_cluster, proxy) = scene(NEWEST, &[LONG]);
    let client = Client::connect(proxy.address()).await;
    let first = login(&client, "alice").await;
    put_as(&client, "a/k", "hers", &[("token", &first)]).await;
    read_as(&client, "a/k", &[("token", &first)]).await;
    let (kept, second) = (hits(&proxy), login(&client, "alice").await);
    assert_ne!(first, second);
    let other = Client::connect(proxy.address()).await;
    let reply = read_as(&other, "a/k", &[("token", &second)]).await;
    assert_eq!(values(&reply), ["hers"]);
    assert_eq!(hits(&proxy), kept + 1.0);
    // Another user, with the same rights, has his own.
    let eve = login(&client, "eve").await;
    read_as(&other, "a/k", &[("token", &eve)]).await;
    assert_eq!(hits(&proxy), kept + 1.0);
}

/// Reads in a tight loop until it is refused, and says how long that took.
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

/// Through this proxy at once, elsewhere within the age of answers, however often it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_revoked_is_gone() {
    for through_proxy in [true, false] {
        let (cluster, proxy) = scene(NEWEST, &[]);
        let client = Client::connect(proxy.address()).await;
        let (root, alice) = (login(&client, "root").await, login(&client, "alice").await);
        let hers: Metadata<'_> = &[("token", &alice)];
        put_as(&client, "a/k", "hers", hers).await;
        // Long enough for a watch to prove it right.
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
            // The age of answers is a second; a busy machine is slow.
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
    }
}

/// Nobody's answers are nobody's no more when users are told apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_once_auth_is_on() {
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
