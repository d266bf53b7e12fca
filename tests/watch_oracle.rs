//! Hundreds of random watchers against random writes, and each must have been told the truth (W2 to
//! W8, W10): directly at etcd and through the proxy, while endpoints fail, on several releases.
//!
//! `ETCD_EDGE_SEEDS=500` plays that many, `ETCD_EDGE_SEED=7` one of them.

#[path = "watch_oracle/mutations.rs"]
mod mutations;
#[path = "watch_oracle/plan.rs"]
mod plan;
#[path = "watch_oracle/scene.rs"]
mod scene;
mod support;
#[path = "watch_oracle/writer.rs"]
mod writer;

use std::time::Duration;

use scene::{Shape, Stage};
use support::cluster::{Cluster, stdout_of};
use support::proxy::Proxy;
use support::release::versions;

/// Whether the proxy's promises go beyond etcd's own: created answers are exact, streams last.
const MERGES: bool = true;

/// A cluster of this release with the users of the plan.
fn stage(version: &str, members: usize, auth: bool) -> Stage {
    // Responses of watches are cut from this plus 512 KiB on.
    let mut builder = Cluster::builder(version)
        .members(members)
        .arg("--max-request-bytes=65536")
        .arg(match version.starts_with("3.7") {
            true => "--watch-progress-notify-interval=200ms",
            false => "--experimental-watch-progress-notify-interval=200ms",
        });
    if auth {
        builder = builder.auth();
    }
    let cluster = builder.start();
    if auth {
        let (first, end) = plan::ALLOWED;
        for args in [
            &["role", "add", "all"][..],
            &[
                "role",
                "grant-permission",
                "all",
                "readwrite",
                "",
                "--prefix",
            ],
            &["role", "add", "some"],
            &["role", "grant-permission", "some", "read", first, end],
            &["user", "add", "alice:secret"],
            &["user", "grant-role", "alice", "all"],
            &["user", "add", &format!("{}:secret", plan::LIMITED)],
            &["user", "grant-role", plan::LIMITED, "some"],
        ] {
            stdout_of(&cluster.etcdctl(args));
        }
    }
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    Stage {
        cluster,
        proxy,
        auth,
        merges: MERGES,
    }
}

/// So many seeds in a row, or what the environment asks for.
async fn seeds(release: usize, members: usize, auth: bool, few: u64) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let mut stage = stage(versions()[release], members, auth);
    let shape = Shape {
        streams: 12,
        watchers: 200,
        time: Duration::from_millis(if members > 1 { 2400 } else { 900 }),
        chaos: members > 1,
    };
    let range = match (number("ETCD_EDGE_SEED"), number("ETCD_EDGE_SEEDS")) {
        (Some(one), _) => one..one + 1,
        (None, many) => 0..many.unwrap_or(few),
    };
    for seed in range {
        // Each test has seeds of its own.
        let own = seed * 100 + (release * 10 + members * 2) as u64 + u64::from(auth);
        scene::play(&mut stage, own, shape).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_the_newest_etcd() {
    seeds(0, 1, false, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_the_middle_etcd() {
    seeds(1, 1, false, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_the_oldest_etcd() {
    seeds(2, 1, false, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_newest_etcd() {
    seeds(0, 1, true, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_middle_etcd() {
    seeds(1, 1, true, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_oldest_etcd() {
    seeds(2, 1, true, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_of_the_newest_etcd() {
    seeds(0, 3, false, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_of_the_middle_etcd() {
    seeds(1, 3, false, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_of_the_oldest_etcd() {
    seeds(2, 3, false, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_three_members() {
    seeds(0, 3, true, 2).await;
}
