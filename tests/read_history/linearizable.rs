//! Test of linearizable reads and writes, through two proxies and directly, while members fail
//! (R1).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::checker;
use crate::clients::{ClientGroup, NextOp};
use crate::history::{KEYS, Route, StoreHistory};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::metric;
use crate::support::release::NEWEST;

/// Number of clients of each proxy and of etcd itself.
const CLIENTS: [usize; 3] = [13, 13, 6];

/// Maximum number of operations between two rounds of outages.
const OPS_BETWEEN_OUTAGES: u64 = 15_000;

/// Returns the number of operations. `ETCD_EDGE_HISTORY=100000` sets it.
fn size() -> u64 {
    let size = std::env::var("ETCD_EDGE_HISTORY");
    size.map_or(20_000, |size| {
        size.parse().expect("ETCD_EDGE_HISTORY is a number")
    })
}

/// Returns the next operation. Most operations read the same key.
fn next_op(rng: &mut Rng) -> NextOp {
    let key = rng.usize(..KEYS);
    match rng.u32(..100) {
        0..55 => NextOp::Read {
            key: Some(0),
            serializable: false,
        },
        55..65 => NextOp::Read {
            key: Some(key),
            serializable: false,
        },
        65..70 => NextOp::Read {
            key: None,
            serializable: false,
        },
        70..90 => NextOp::Put(key),
        _ => NextOp::Swap(key),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linearizable_reads_stay_linearizable_during_outages() {
    let (size, begun) = (size(), Instant::now());
    let mut cluster = Cluster::start(NEWEST, 3);
    let flags = ["--advertise-client-url="];
    let proxies = [
        Proxy::start(&cluster, &flags),
        // This proxy sends calls to every member.
        Proxy::start(
            &cluster,
            &[&flags[..], &["--endpoint-policy=round-robin"]].concat(),
        ),
    ];
    let mut clients = ClientGroup::new();
    for (proxy, count) in CLIENTS.iter().enumerate() {
        for client in 0..*count {
            let (route, addresses) = match proxies.get(proxy) {
                Some(server) => (Route::Proxy(proxy), vec![server.address().to_owned()]),
                None => {
                    let members = (0..3).map(|n| cluster.endpoint((client + n) % 3));
                    (Route::Direct, members.collect())
                }
            };
            clients.add(route, &addresses, Duration::ZERO, next_op);
        }
    }
    let mut rounds = 0;
    while rounds == 0 || clients.done() < size {
        outages(&mut cluster, &clients).await;
        rounds += 1;
        let more = size.saturating_sub(clients.done());
        clients.wait_ops(more.min(OPS_BETWEEN_OUTAGES)).await;
    }
    let report = clients.finish().await;
    let took = begun.elapsed();
    let history = StoreHistory::of(&cluster.endpoint(0)).await;
    let mut violations = checker::check_content(&report.ops, &history);
    violations.extend(checker::check_order(&report.ops, &history));
    let sum = |name: &str| {
        proxies
            .iter()
            .map(|p| metric(p.address(), name))
            .sum::<f64>()
    };
    let shared = sum("etcd_edge_reads_shared_total");
    let reads = report.count(|op| {
        matches!(op.route, Route::Proxy(_)) && op.header().is_some() && op.writes().is_none()
    });
    println!(
        "{} operations and {} of unknown outcome in {took:?}, {rounds} rounds of outages, checked in \
         {:?}; {} versions; {shared} of {reads} reads were shared ({:.0} %), {} hedged, {} retries; \
         {} violations; failures: {:#?}",
        report.done(),
        report.unknown(),
        begun.elapsed() - took,
        history.keys.iter().map(Vec::len).sum::<usize>(),
        100.0 * shared / reads as f64,
        sum("etcd_edge_hedged_reads_total"),
        sum("etcd_edge_retries_total"),
        violations.len(),
        report.failures,
    );
    assert!(
        violations.is_empty(),
        "{}",
        violations[..violations.len().min(10)].join("\n")
    );
    assert!(report.done() as u64 >= size, "{}", report.done());
    assert!(shared > 0.0, "no read was shared");
    assert_eq!(sum("etcd_edge_history_resets_total"), 0.0);
}

/// Kills or pauses each member, the leader in both ways.
async fn outages(cluster: &mut Cluster, clients: &ClientGroup) {
    let leader = cluster.leader();
    clients.wait_ops(1_000).await;
    cluster.kill(leader);
    tokio::time::sleep(Duration::from_secs(1)).await;
    clients.wait_ops(500).await;
    cluster.restart(leader);
    cluster.wait_healthy(leader);
    clients.wait_ops(1_000).await;

    let leader = cluster.leader();
    cluster.stop(leader);
    tokio::time::sleep(Duration::from_secs(3)).await;
    clients.wait_ops(500).await;
    cluster.resume(leader);
    cluster.wait_healthy(leader);
    clients.wait_ops(1_000).await;

    let follower = (cluster.leader() + 1) % 3;
    cluster.kill(follower);
    tokio::time::sleep(Duration::from_millis(500)).await;
    clients.wait_ops(500).await;
    cluster.restart(follower);
    cluster.wait_healthy(follower);
    clients.wait_ops(1_000).await;

    let follower = (cluster.leader() + 2) % 3;
    cluster.stop(follower);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    cluster.resume(follower);
    cluster.wait_healthy(follower);
    clients.wait_ops(1_000).await;
}
