//! Tests of watches by several users: each user receives what etcd's permissions allow (R4, W10).

use std::sync::Arc;

use crate::PUT;
use crate::support::auth_users;
use crate::support::cluster::{Cluster, stdout_of};
use crate::support::load::H2Connection;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::versions;
use crate::support::watch::client::{ClientConfig, Credentials, Expect, WatchClient, dial, login};
use crate::support::watch::messages::{Create, Response};
use crate::support::watch::stream::Stream;

/// Starts etcd with the users `alice` for keys below `a/`, `bob` below `b/`, and both below `c/`.
fn scene(version: &str) -> (Cluster, Proxy) {
    let cluster = Cluster::builder(version).auth().start();
    auth_users::add(&cluster, "alice", &["a/", "c/"]);
    auth_users::add(&cluster, "bob", &["b/", "c/"]);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    (cluster, proxy)
}

fn user(name: &str) -> Credentials {
    Credentials {
        name: name.to_owned(),
        password: auth_users::password(name).to_owned(),
    }
}

async fn put(connection: &H2Connection, key: &str) -> i64 {
    let result = connection
        .unary(PUT, Msg::new().bytes(1, key).bytes(2, "v").as_ref(), None)
        .await;
    assert!(result.ok(), "{result:?}");
    pb::int(&result.message, &[1, 3])
}

/// Returns the fields of a response that do not depend on a member or a revision.
fn comparable(response: &Response) -> String {
    let Response {
        id,
        created,
        canceled,
        compact_revision,
        reason,
        ..
    } = response;
    format!("{id} {created} {canceled} {compact_revision} {reason:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_different_users_are_separate() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let root = dial(proxy.address(), Some(&user("root"))).await.unwrap();
        // All streams use one connection. One user has two streams with different tokens.
        let connection = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
        let mut streams = Vec::new();
        for name in ["alice", "bob", "alice", "root"] {
            let token = login(&connection, Some(&user(name))).await.unwrap();
            streams.push((name, Stream::open(&connection, &token).await));
        }
        for _ in 0..2 {
            for (name, stream) in &mut streams {
                for prefix in ["a/", "b/", "c/"] {
                    let mut end = prefix.to_owned();
                    end.replace_range(1.., "0");
                    let response = stream.create(&Create::of(prefix, &end)).await;
                    let allowed =
                        *name == "root" || prefix == "c/" || name.starts_with(&prefix[..1]);
                    assert_eq!(
                        !response.canceled, allowed,
                        "{version}: {name}, {prefix}: {response:?}"
                    );
                    if !allowed {
                        assert_eq!(response.id, -1, "{response:?}");
                        let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
                        assert_eq!(response.reason, reason);
                    }
                }
            }
        }
        let mut last = 0;
        for key in ["a/1", "b/1", "c/1", "a/2", "b/2", "c/2", "d"] {
            last = put(&root, key).await;
        }
        for (name, stream) in &mut streams {
            let mut keys = Vec::new();
            for response in stream.progress_at(last).await {
                keys.extend(response.events.into_iter().map(|event| event.kv.key));
            }
            let allowed = |key: &&str| {
                *name == "root" || key.starts_with("c/") || name.starts_with(&key[..1])
            };
            // Each event arrives twice, since each range was created twice.
            let all = ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"].into_iter();
            let wanted: Vec<&str> = all.filter(allowed).flat_map(|key| [key, key]).collect();
            let mut keys: Vec<String> = keys
                .into_iter()
                .map(|key| String::from_utf8(key).expect("text"))
                .collect();
            keys.sort();
            assert_eq!(keys, wanted, "{version}: {name}");
        }
        drop(cluster);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_or_wrong_token_is_refused_as_by_etcd() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let token = |value: &str| vec![("token".to_owned(), value.to_owned())];
        // The range is already watched.
        let connection = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
        let alice = login(&connection, Some(&user("alice"))).await.unwrap();
        let mut existing = Stream::open(&connection, &alice).await;
        existing.create(&Create::of("a/", "a0")).await;
        for metadata in [
            Vec::new(),
            token("unknown.1"),
            token("abcdefghijklmnop.1"),
            token(""),
            vec![("authorization".to_owned(), "unknown.1".to_owned())],
        ] {
            let mut responses = Vec::new();
            for address in [&cluster.endpoint(0)[..], proxy.address()] {
                let connection = Arc::new(H2Connection::connect(address).await.unwrap());
                let mut stream = Stream::open(&connection, &metadata).await;
                stream.send(&Create::of("a/", "a0").request());
                let response = stream.next_or_end().await;
                responses.push(response.map(|response| comparable(&response)));
            }
            println!("{version} {metadata:?}: {responses:?}");
            assert_eq!(responses[0], responses[1], "{version} {metadata:?}");
            let refused = match &responses[1] {
                Ok(response) => response.starts_with("-1 true true 0"),
                Err(_) => true,
            };
            assert!(refused, "{version} {metadata:?}: {responses:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_permission_ends_the_creation_of_watches() {
    let (cluster, proxy) = scene(versions()[0]);
    let connection = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
    let token = login(&connection, Some(&user("alice"))).await.unwrap();
    let mut stream = Stream::open(&connection, &token).await;
    let all = Create::of("a/", "a0");
    assert!(!stream.create(&all).await.canceled);
    stdout_of(&cluster.etcdctl(&["user", "revoke-role", "alice", "role-alice"]));
    // The proxy may cache a permission for some seconds.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let response = stream.create(&all).await;
        if response.canceled {
            assert!(
                response.reason.contains("permission denied"),
                "{response:?}"
            );
            break;
        }
        assert!(
            std::time::Instant::now() < until,
            "the permission was cached for too long"
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_lost_by_a_restart_cause_no_event_loss() {
    let (mut cluster, proxy) = scene(versions()[0]);
    let mut clients = Vec::new();
    for name in ["alice", "bob", "alice"] {
        let client = WatchClient::start(ClientConfig {
            name: name.to_owned(),
            addresses: vec![proxy.address().to_owned()],
            credentials: Some(user(name)),
            metadata: Vec::new(),
            known: Arc::default(),
            connection: Arc::default(),
        });
        client.create(0, Create::of("c/", "c0"), Expect::Created);
        clients.push(client);
    }
    // A watch from now on starts with its first event.
    let mut first = 0;
    for turn in 0..3 {
        let root = dial(&cluster.endpoint(0), Some(&user("root")))
            .await
            .unwrap();
        for number in 0..20 {
            let revision = put(&root, &format!("c/{turn}-{number}")).await;
            first = if first == 0 { revision } else { first };
        }
        if turn < 2 {
            cluster.kill(0);
            cluster.restart(0);
            cluster.wait_healthy(0);
        }
    }
    let root = dial(&cluster.endpoint(0), Some(&user("root")))
        .await
        .unwrap();
    let last = put(&root, "c/last").await;
    let finishing: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(client.finish(last)))
        .collect();
    // Progress may need a write after the revision at which a watch resumed.
    put(&root, "d").await;
    for client in finishing {
        let record = client.await.unwrap();
        let received = record.sessions.iter().flat_map(|session| &session.received);
        let received: Vec<&Response> = received.collect();
        assert!(
            received.iter().all(|response| !response.canceled),
            "{}: {received:?}",
            record.name
        );
        let created = received
            .iter()
            .find(|each| each.created)
            .expect("created")
            .revision;
        let events = received.iter().flat_map(|response| &response.events);
        let revisions: Vec<i64> = events.map(|event| event.revision()).collect();
        // etcd may also send an event at or below `created`.
        let begins = revisions.first().copied().unwrap_or(0);
        assert!(
            begins <= first.max(created + 1),
            "{}: {begins}",
            record.name
        );
        let wanted: Vec<i64> = (begins..=last).collect();
        assert_eq!(revisions, wanted, "{}", record.name);
    }
}
