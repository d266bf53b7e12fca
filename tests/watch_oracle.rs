//! Hundreds of random watchers against random writes. Every watcher must receive exactly the events
//! of the history (W2 to W8, W10), at etcd itself and through the proxy, while endpoints fail, on
//! several releases.
//!
//! `ETCD_EDGE_SEEDS=500` runs that number of seeds, `ETCD_EDGE_SEED=7` runs one.

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

use scene::{Environment, Load};
use support::cluster::{Cluster, stdout_of};
use support::proxy::Proxy;
use support::release::versions;

/// The proxy guarantees more than etcd itself: exact `created` revisions, and streams that do not
/// end.
const MERGES: bool = true;

/// Starts a cluster of this release, with the users of the plan, and a proxy.
fn environment(version: &str, members: usize, auth: bool) -> Environment {
    // etcd fragments watch responses that exceed this limit plus 512 KiB.
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
    Environment {
        cluster,
        proxy,
        auth,
        merges: MERGES,
    }
}

/// Runs `few` consecutive seeds, or those that the environment variables select.
async fn run_seeds(release: usize, members: usize, auth: bool, few: u64) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let mut environment = environment(versions()[release], members, auth);
    let load = Load {
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
        // The seeds of the tests differ.
        let own = seed * 100 + (release * 10 + members * 2) as u64 + u64::from(auth);
        scene::run(&mut environment, own, load).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_with_one_member_of_the_newest_etcd() {
    run_seeds(0, 1, false, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_with_one_member_of_the_middle_etcd() {
    run_seeds(1, 1, false, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_with_one_member_of_the_oldest_etcd() {
    run_seeds(2, 1, false, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_for_users_of_the_newest_etcd() {
    run_seeds(0, 1, true, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_for_users_of_the_middle_etcd() {
    run_seeds(1, 1, true, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_for_users_of_the_oldest_etcd() {
    run_seeds(2, 1, true, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_with_three_members_of_the_newest_etcd() {
    run_seeds(0, 3, false, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_with_three_members_of_the_middle_etcd() {
    run_seeds(1, 3, false, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_with_three_members_of_the_oldest_etcd() {
    run_seeds(2, 3, false, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_exact_for_users_of_three_members() {
    run_seeds(0, 3, true, 2).await;
}
