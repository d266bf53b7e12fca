//! Users of a cluster with auth, their permissions and their tokens.

use std::io::Write as _;

use tempfile::NamedTempFile;

use super::cluster::{Cluster, ROOT_PASSWORD, stdout_of};
use super::grpc::Client;
use super::pb::{self, Msg};

/// The password of every user except root.
pub const PASSWORD: &str = "secret";

/// Adds a user with read and write permission for these prefixes, by the role `role-NAME`.
pub fn add(cluster: &Cluster, user: &str, prefixes: &[&str]) {
    let role = &format!("role-{user}");
    stdout_of(&cluster.etcdctl(&["role", "add", role]));
    for prefix in prefixes {
        let grant = [
            "role",
            "grant-permission",
            role,
            "readwrite",
            prefix,
            "--prefix",
        ];
        stdout_of(&cluster.etcdctl(&grant));
    }
    stdout_of(&cluster.etcdctl(&["user", "add", &format!("{user}:{PASSWORD}")]));
    stdout_of(&cluster.etcdctl(&["user", "grant-role", user, role]));
}

/// Returns a user's password.
pub fn password(user: &str) -> &'static str {
    if user == "root" {
        ROOT_PASSWORD
    } else {
        PASSWORD
    }
}

/// Logs a user in and returns the token.
pub async fn login(client: &Client, user: &str) -> String {
    let login = Msg::new().bytes(1, user).bytes(2, password(user));
    let reply = client
        .unary("/etcdserverpb.Auth/Authenticate", login, &[])
        .await;
    String::from_utf8(pb::bytes(reply.only(), &[2])).expect("a token is text")
}

/// Changes the password of a user, which makes the user's tokens invalid.
pub async fn change_password(cluster: &Cluster, user: &str, password: &str) {
    let client = Client::connect(&cluster.endpoint(0)).await;
    let root = login(&client, "root").await;
    let change = Msg::new().bytes(1, user).bytes(2, password);
    let path = "/etcdserverpb.Auth/UserChangePassword";
    let reply = client.unary(path, change, &[("token", &root)]).await;
    assert_eq!(reply.code(), Some(0), "{reply:?}");
}

/// Kind of the tokens that etcd issues.
#[derive(Debug)]
pub struct TokenKind {
    /// Lifetime in seconds.
    lifetime: u32,
    /// The file with the secret of JSON Web Tokens.
    secret: Option<NamedTempFile>,
}

impl TokenKind {
    /// Tokens that etcd keeps in memory. etcd drops a token that is unused for this many seconds.
    pub fn simple(lifetime: u32) -> TokenKind {
        TokenKind {
            lifetime,
            secret: None,
        }
    }

    /// JSON Web Tokens that expire after this many seconds.
    pub fn jwt(lifetime: u32) -> TokenKind {
        let mut secret = NamedTempFile::new().expect("a temporary file");
        let written = secret.write_all(b"a secret that only this test uses");
        written.expect("a file that can be written");
        TokenKind {
            lifetime,
            secret: Some(secret),
        }
    }

    /// Returns the flag of etcd for these tokens.
    pub fn etcd_flag(&self) -> String {
        let lifetime = self.lifetime;
        match &self.secret {
            None => format!("--auth-token-ttl={lifetime}"),
            Some(secret) => {
                let secret = secret.path().display();
                let options = format!("priv-key={secret},sign-method=HS256,ttl={lifetime}s");
                format!("--auth-token=jwt,{options}")
            }
        }
    }
}
