//! Heartbeats of many clients on few upstream streams, with a real etcd: counted by etcd itself,
//! beside clients that block their streams, with several users, and while members fail (L1 to L4).

mod support;

#[path = "leases/blocking.rs"]
mod blocking;
#[path = "leases/failover.rs"]
mod failover;
#[path = "leases/identities.rs"]
mod identities;
#[path = "leases/sharing.rs"]
mod sharing;
#[path = "leases/tokens.rs"]
mod tokens;

use support::cluster::Cluster;
use support::grpc::Client;
use support::proxy::Proxy;

fn scene(version: &str, members: usize) -> (Cluster, Proxy) {
    let cluster = Cluster::start(version, members);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    (cluster, proxy)
}

/// Opens connections, which the proxy spreads over its workers.
async fn clients(address: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(address).await);
    }
    clients
}

/// Grants leases in parallel, so that the first does not expire before the last is granted.
async fn leases(client: &Client, ttl: i64, count: usize) -> Vec<i64> {
    let grants = (0..50).map(|n| {
        let client = client.clone();
        let some = (n..count).step_by(50);
        tokio::spawn(async move {
            let mut leases = Vec::new();
            for _ in some {
                leases.push(support::heartbeats::grant(&client, ttl).await);
            }
            leases
        })
    });
    let mut leases = Vec::new();
    for granted in grants.collect::<Vec<_>>() {
        leases.extend(granted.await.expect("a task that does not panic"));
    }
    leases
}
