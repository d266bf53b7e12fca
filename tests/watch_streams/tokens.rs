//! Tests of watch streams with a token that etcd does not accept any longer, compared with etcd
//! itself: the new watch is refused, and the open ones go on (W10).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::support::auth_users::{self, PASSWORD, TokenKind};
use crate::support::cluster::{Cluster, stdout_of};
use crate::support::load::H2Connection;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::current_endpoint;
use crate::support::release::versions;
use crate::support::watch::client::{Credentials, login};
use crate::support::watch::messages::{Create, Response};
use crate::support::watch::stream::Stream;

/// Lifetime in seconds of the tokens that expire in a test.
const SHORT: u32 = 4;
/// Lifetime in seconds of all other tokens.
const LONG: u32 = 600;

/// An event after which etcd refuses watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Time passes.
    Expiry,
    /// The user is deleted.
    Deletion,
    /// The password of the user is changed.
    PasswordChange,
    /// A role is added that the user does not have. JWTs are valid for one revision of users and
    /// roles.
    OtherRole,
    /// The role of the user is revoked. The token stays valid.
    Revocation,
}

impl Fault {
    /// Makes the tokens of both users invalid, or takes their permissions.
    async fn happen(self, cluster: &Cluster) {
        if self == Fault::Expiry {
            sleep(Duration::from_secs(u64::from(SHORT) + 2)).await;
        }
        for user in USERS {
            let role = format!("role-{user}");
            let args = match self {
                Fault::Expiry => return,
                Fault::Deletion => vec!["user", "delete", user],
                Fault::PasswordChange => {
                    auth_users::change_password(cluster, user, "other").await;
                    continue;
                }
                Fault::OtherRole => vec!["role", "add", user],
                Fault::Revocation => vec!["user", "revoke-role", user, &role],
            };
            stdout_of(&cluster.etcdctl(&args));
        }
    }
}

/// Starts etcd with tokens of this kind, a proxy, and the users `direct` and `proxied` with the same
/// permissions.
fn scene(version: &str, tokens: &TokenKind) -> (Cluster, Proxy) {
    let cluster = Cluster::builder(version).arg(&tokens.etcd_flag());
    let cluster = cluster.auth().start();
    for user in USERS {
        auth_users::add(&cluster, user, &["a/", "c/"]);
    }
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    (cluster, proxy)
}

/// The user of the stream at etcd itself, and that of the stream through the proxy.
const USERS: [&str; 2] = ["direct", "proxied"];

fn user(name: &str) -> Credentials {
    Credentials {
        name: name.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

/// Returns the fields of a response that do not depend on a revision.
fn comparable(response: &Response) -> String {
    let Response {
        id,
        created,
        canceled,
        compact_revision,
        reason,
        events,
        ..
    } = response;
    let keys: Vec<_> = events.iter().map(|event| event.kv.key.clone()).collect();
    let keys: Vec<_> = keys
        .iter()
        .map(|key| String::from_utf8_lossy(key))
        .collect();
    format!("{id} {created} {canceled} {compact_revision} {reason:?} {keys:?}")
}

fn prefix(key: &str) -> Create {
    let end = format!("{}0", key.trim_end_matches('/'));
    Create::of(key, end)
}

/// Opens a stream with two watches and ends one of them.
async fn open(address: &str, name: &str) -> (Stream, Vec<(String, String)>) {
    let connection = Arc::new(H2Connection::connect(address).await.unwrap());
    let token = login(&connection, Some(&user(name))).await.unwrap();
    let mut stream = Stream::open(&connection, &token).await;
    for (id, range) in [(0, prefix("a/")), (1, Create::of("c/ended", ""))] {
        let created = stream.create(&range).await;
        assert!(!created.canceled && created.id == id, "{created:?}");
    }
    stream.cancel(1);
    assert!(stream.next().await.canceled);
    (stream, token)
}

/// The streams of both users, whose tokens are invalid, and the responses received since.
struct Comparison<'a> {
    cluster: &'a Cluster,
    streams: [Stream; 2],
    received: [Vec<String>; 2],
}

impl Comparison<'_> {
    /// Sends a create on both streams and reads the responses.
    async fn create(&mut self, create: &Create) {
        for (stream, received) in self.streams.iter_mut().zip(&mut self.received) {
            stream.send(&create.request());
            received.push(comparable(&stream.next().await));
        }
    }

    /// Checks that the open watches go on, and that new ones are refused.
    async fn round(&mut self, new_range: &str) {
        for create in [
            // A new range, one that ended a moment ago, new ones inside and around the open one,
            // and one without permission.
            Create::of(new_range, ""),
            Create::of("c/ended", ""),
            Create::of("a/x", "a/y"),
            prefix("c/"),
            Create::of("b/", ""),
        ] {
            self.create(&create).await;
        }
        let put = stdout_of(
            &self
                .cluster
                .etcdctl(&["put", "a/1", "v", "--write-out=json"]),
        );
        let (_, revision) = put.split_once("\"revision\":").expect("a revision");
        let revision = revision.split([',', '}']).next().expect("a number");
        let revision = revision.parse().expect("a number");
        for (stream, received) in self.streams.iter_mut().zip(&mut self.received) {
            received.push(comparable(&stream.next().await));
            let progress = stream.progress_at(revision).await;
            received.push(comparable(progress.last().expect("progress")));
        }
    }
}

/// Returns the first response to a create on a new stream with the invalid token, or its status.
async fn new_stream(address: &str, token: &[(String, String)]) -> Result<String, String> {
    let connection = Arc::new(H2Connection::connect(address).await.unwrap());
    let mut stream = Stream::open(&connection, token).await;
    stream.send(&prefix("a/").request());
    let response = stream.next_or_end().await;
    response.map(|response| comparable(&response))
}

async fn compare(version: &str, tokens: &TokenKind, fault: Fault) {
    let (cluster, proxy) = scene(version, tokens);
    let addresses = [cluster.endpoint(0), proxy.address().to_owned()];
    let (direct, direct_token) = open(&addresses[0], USERS[0]).await;
    let (proxied, token) = open(&addresses[1], USERS[1]).await;
    fault.happen(&cluster).await;
    let mut comparison = Comparison {
        cluster: &cluster,
        streams: [direct, proxied],
        received: Default::default(),
    };
    comparison.round("c/new").await;
    if fault != Fault::Expiry {
        // For a range that is open, the proxy may have a permission cached for a few seconds (R4).
        sleep(Duration::from_millis(3_200)).await;
    }
    comparison.create(&prefix("a/")).await;
    comparison.round("c/newer").await;
    let Comparison {
        streams, received, ..
    } = comparison;
    let mut received = received.into_iter();
    let mut results = Vec::new();
    for ((mut stream, token), address) in streams
        .into_iter()
        .zip([direct_token, token])
        .zip(&addresses)
    {
        let mut received = received.next().expect("the responses of each stream");
        stream.cancel(0);
        received.push(comparable(&stream.next().await));
        received.push(format!("{:?}", new_stream(address, &token).await));
        results.push(received);
    }
    println!("{version} {tokens:?} {fault:?}: {:#?}", results[0]);
    assert_eq!(results[0], results[1], "{version} {tokens:?} {fault:?}");
    let refused = results[0]
        .iter()
        .filter(|response| response.contains("-1 true true 0"));
    assert_eq!(refused.count(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_token_ends_no_open_watch_of_the_newest_etcd() {
    compare_all(versions()[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_token_ends_no_open_watch_of_the_middle_etcd() {
    compare_all(versions()[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_token_ends_no_open_watch_of_the_oldest_etcd() {
    compare_all(versions()[2]).await;
}

async fn compare_all(version: &str) {
    for fault in [
        Fault::Expiry,
        Fault::Deletion,
        Fault::PasswordChange,
        Fault::Revocation,
    ] {
        let lifetime = if fault == Fault::Expiry { SHORT } else { LONG };
        compare(version, &TokenKind::simple(lifetime), fault).await;
    }
    for fault in [Fault::Expiry, Fault::Deletion, Fault::OtherRole] {
        let lifetime = if fault == Fault::Expiry { SHORT } else { LONG };
        compare(version, &TokenKind::jwt(lifetime), fault).await;
    }
}

/// A valid token of the same user replaces the expired one upstream, without a lost event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valid_token_of_a_user_takes_over_from_an_expired_one() {
    let (cluster, proxy) = scene(versions()[0], &TokenKind::simple(SHORT));
    let (mut first, _) = open(proxy.address(), USERS[1]).await;
    Fault::Expiry.happen(&cluster).await;
    let (mut second, _) = open(proxy.address(), USERS[1]).await;
    for round in 0..5 {
        // Each new range needs a token at etcd.
        let created = second.create(&Create::of(format!("c/{round}"), "")).await;
        assert!(!created.canceled, "{created:?}");
        let refused = first.create(&Create::of(format!("c/x{round}"), "")).await;
        assert!(refused.canceled, "{refused:?}");
        assert!(refused.reason.contains("invalid auth token"), "{refused:?}");
        for key in [format!("a/{round}"), format!("c/{round}")] {
            stdout_of(&cluster.etcdctl(&["put", &key, "v"]));
        }
        let events = first.events(1).await;
        assert_eq!(events[0].kv.key, format!("a/{round}").into_bytes());
        assert_eq!(second.events(2).await.len(), 2);
    }
}

/// After the loss of an endpoint no event can be read without a token. Then clients authenticate
/// again and resume, as after the loss of a connection to etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_token_after_an_upstream_loss_ends_streams_as_unavailable() {
    // A restarted member reads its log again, and issues expired simple tokens once more.
    for (kind, fault) in [
        (TokenKind::simple(LONG), Fault::PasswordChange),
        (TokenKind::jwt(SHORT), Fault::Expiry),
    ] {
        let (mut cluster, proxy) = scene(versions()[0], &kind);
        let (mut stream, _) = open(proxy.address(), USERS[1]).await;
        fault.happen(&cluster).await;
        cluster.kill(0);
        cluster.restart(0);
        cluster.wait_healthy(0);
        let end = stream.next_or_end().await;
        let expected = "status 14 etcd-edge: no endpoint can serve the watch";
        assert_eq!(
            end.expect_err("the end of the stream"),
            expected,
            "{kind:?}"
        );
        auth_users::change_password(&cluster, USERS[1], PASSWORD).await;
        let (mut stream, _) = open(proxy.address(), USERS[1]).await;
        stdout_of(&cluster.etcdctl(&["put", "a/1", "v"]));
        assert_eq!(stream.events(1).await.len(), 1);
    }
}

/// Use renews a simple token only at the member that receives the call. Another token of the user
/// holds the shared stream after a failover, and the next member does not know the token of the
/// first client. That is a loss, and no refusal: the client authenticates again and resumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_the_next_member_does_not_know_ends_its_stream_as_unavailable() {
    let builder = Cluster::builder(versions()[0]).members(3);
    let mut cluster = builder
        .arg(&TokenKind::simple(SHORT).etcd_flag())
        .auth()
        .start();
    auth_users::add(&cluster, USERS[1], &["a/", "c/"]);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let (mut first, _) = open(proxy.address(), USERS[1]).await;
    for second in 0..SHORT + 2 {
        sleep(Duration::from_secs(1)).await;
        let created = first.create(&Create::of(format!("c/{second}"), "")).await;
        assert!(!created.canceled, "{created:?}");
    }
    let (mut second, _) = open(proxy.address(), USERS[1]).await;
    let serving = current_endpoint(&proxy).expect("an endpoint");
    let serving = (0..3).find(|member| serving.ends_with(&cluster.endpoint(*member)));
    let serving = serving.expect("a member");
    let next = (serving + 1) % 3;
    cluster.move_leader(next);
    cluster.kill(serving);
    stdout_of(&cluster.etcdctl_at(&cluster.endpoint(next), &["put", "a/1", "v"]));
    for stream in [&mut first, &mut second] {
        assert_eq!(stream.events(1).await.len(), 1);
    }
    let created = second.create(&Create::of("c/second", "")).await;
    assert!(!created.canceled, "{created:?}");
    first.send(&Create::of("c/first", "").request());
    let end = first
        .next_or_end()
        .await
        .expect_err("the end of the stream");
    assert_eq!(end, "status 14 etcd-edge: no endpoint can serve the watch");
}
