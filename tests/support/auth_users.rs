//! Users of a cluster with auth, their permissions and their tokens.

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
