//! Heartbeats with a token that etcd does not accept any longer, compared with etcd itself: each
//! stream receives what etcd would send, and no other stream is affected (L4).

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::support::auth_users::{self, TokenKind, login};
use crate::support::cluster::{Cluster, stdout_of};
use crate::support::grpc::{Call, Client};
use crate::support::heartbeats::{KEEP_ALIVE, heartbeat, put_with_lease, renew};
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::versions;

/// Lifetime in seconds of the tokens that expire in a test.
const SHORT: u32 = 4;
/// Lifetime in seconds of all other tokens.
const LONG: u32 = 600;

/// The user of the streams at etcd itself, and that of the streams through the proxy.
const USERS: [&str; 2] = ["direct", "proxied"];

/// An event after which etcd refuses heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Expiry,
    Deletion,
    PasswordChange,
    /// A role is added. JWTs are valid for one revision of users and roles.
    OtherRole,
    Revocation,
}

impl Fault {
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

/// Three streams of one user with one token. Each has sent a heartbeat.
struct Streams {
    client: Client,
    token: String,
    /// Its lease has a key.
    with_key: (Call, i64),
    /// Its lease has a key. It sends nothing for a while.
    idle: (Call, i64),
    /// Its lease has no key.
    without_key: (Call, i64),
}

impl Streams {
    async fn open(address: &str, user: &str) -> Streams {
        let client = Client::connect(address).await;
        let token = login(&client, user).await;
        let metadata = [("token", token.as_str())];
        let mut streams = Vec::new();
        for key in [Some("a/1"), Some("a/2"), None] {
            let grant = Msg::new().int(1, 60);
            let path = "/etcdserverpb.Lease/LeaseGrant";
            let lease = client.unary(path, grant, &metadata).await;
            let lease = pb::int(lease.only(), &[2]);
            if let Some(key) = key {
                put_with_lease(&client, &format!("{key}{user}"), lease, &metadata).await;
            }
            let mut call = client.call(KEEP_ALIVE, &metadata).await;
            assert_eq!(renew(&mut call, lease).await, 60);
            streams.push((call, lease));
        }
        let without_key = streams.pop().expect("a stream");
        let idle = streams.pop().expect("a stream");
        let with_key = streams.pop().expect("a stream");
        Streams {
            client,
            token,
            with_key,
            idle,
            without_key,
        }
    }

    /// Sends a heartbeat on each stream and on a new one, and returns the responses.
    async fn heartbeats(mut self) -> Vec<String> {
        let (mut call, lease) = self.with_key;
        call.send(heartbeat(lease)).await;
        let mut received = vec![response(call).await];
        // The idle stream is not affected by the refusal on the other.
        let pause = Duration::from_millis(300);
        let idle = timeout(pause, self.idle.0.next()).await;
        assert!(idle.is_err(), "an idle stream received {idle:?}");
        let metadata = [("token", self.token.as_str())];
        let new = self.client.call(KEEP_ALIVE, &metadata).await;
        for (mut call, lease) in [self.without_key, (new, self.idle.1), self.idle] {
            call.send(heartbeat(lease)).await;
            received.push(response(call).await);
        }
        received
    }
}

/// Returns the TTL of the next response, or the status with which the stream ends.
async fn response(mut call: Call) -> String {
    match call.next().await {
        Some(message) => format!("TTL {}", pb::int(&message, &[3])),
        None => {
            let reply = call.finish().await;
            format!("{:?} {}", reply.code(), reply.message())
        }
    }
}

async fn compare(version: &str, tokens: &TokenKind, fault: Fault) {
    let cluster = Cluster::builder(version).arg(&tokens.etcd_flag()).auth();
    let cluster = cluster.start();
    for user in USERS {
        auth_users::add(&cluster, user, &["a/"]);
    }
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let direct = Streams::open(&cluster.endpoint(0), USERS[0]).await;
    let proxied = Streams::open(proxy.address(), USERS[1]).await;
    let lease = proxied.with_key.1;
    fault.happen(&cluster).await;
    // Streams with other tokens on the same proxy: of another user, and of the same one.
    let client = Client::connect(proxy.address()).await;
    let mut others = vec![login(&client, "root").await];
    if fault == Fault::Expiry {
        others.push(login(&client, USERS[1]).await);
    }
    let mut good = Vec::new();
    for token in others {
        let mut call = client.call(KEEP_ALIVE, &[("token", &token)]).await;
        assert_eq!(renew(&mut call, lease).await, 60, "{version} {fault:?}");
        good.push(call);
    }
    let expected = direct.heartbeats().await;
    println!("{version} {tokens:?} {fault:?}: {expected:?}");
    assert_eq!(proxied.heartbeats().await, expected, "{version} {fault:?}");
    if fault != Fault::Expiry {
        for call in &mut good {
            assert_eq!(renew(call, lease).await, 60, "{version} {fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_simple_token_ends_only_its_own_heartbeats() {
    for version in versions() {
        for fault in [
            Fault::Expiry,
            Fault::Deletion,
            Fault::PasswordChange,
            Fault::Revocation,
        ] {
            let lifetime = if fault == Fault::Expiry { SHORT } else { LONG };
            compare(version, &TokenKind::simple(lifetime), fault).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_jwt_ends_only_its_own_heartbeats() {
    for version in versions() {
        for fault in [Fault::Expiry, Fault::Deletion, Fault::OtherRole] {
            let lifetime = if fault == Fault::Expiry { SHORT } else { LONG };
            compare(version, &TokenKind::jwt(lifetime), fault).await;
        }
    }
}
