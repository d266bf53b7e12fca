//! Linearizable reads and writes, through two proxies and past them, while members fail (R1).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::checker;
use crate::clients::{Crew, Wish};
use crate::history::{KEYS, Truth, Way};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::metric;
use crate::support::release::NEWEST;

/// Of each proxy, and of etcd itself.
const CLIENTS: [usize; 3] = [13, 13, 6];

/// Operations between two rounds of outages, at the most.
const CALM: u64 = 15_000;

/// How many operations; by hand: `ETCD_EDGE_HISTORY=100000`.
fn size() -> u64 {
    let size = std::env::var("ETCD_EDGE_HISTORY");
    size.map_or(20_000, |size| {
        size.parse().expect("ETCD_EDGE_HISTORY is a number")
    })
}

/// Most read what most others read too.
fn wish(rng: &mut Rng) -> Wish {
    let key = rng.usize(..KEYS);
    match rng.u32(..100) {
        0..55 => Wish::Read {
            key: Some(0),
            serializable: false,
        },
        55..65 => Wish::Read {
            key: Some(key),
            serializable: false,
        },
        65..70 => Wish::Read {
            key: None,
            serializable: false,
        },
        70..90 => Wish::Put(key),
        _ => Wish::Swap(key),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linearizable_reads_are_linearizable() {
    let (size, begun) = (size(), Instant::now());
    let mut cluster = Cluster::start(NEWEST, 3);
    let flags = ["--advertise-client-url="];
    let proxies = [
        Proxy::start(&cluster, &flags),
        // Whose calls go to any member.
        Proxy::start(
            &cluster,
            &[&flags[..], &["--endpoint-policy=round-robin"]].concat(),
        ),
    ];
    let mut crew = Crew::new();
    for (way, count) in CLIENTS.iter().enumerate() {
        for client in 0..*count {
            let (way, addresses) = match proxies.get(way) {
                Some(proxy) => (Way::Proxy(way), vec![proxy.address().to_owned()]),
                None => {
                    let members = (0..3).map(|n| cluster.endpoint((client + n) % 3));
                    (Way::Direct, members.collect())
                }
            };
            crew.add(way, &addresses, Duration::ZERO, wish);
        }
    }
    let mut rounds = 0;
    while rounds == 0 || crew.done() < size {
        outages(&mut cluster, &crew).await;
        rounds += 1;
        crew.flows(size.saturating_sub(crew.done()).min(CALM)).await;
    }
    let account = crew.finish().await;
    let took = begun.elapsed();
    let truth = Truth::of(&cluster.endpoint(0)).await;
    let mut wrong = checker::content(&account.ops, &truth);
    wrong.extend(checker::order(&account.ops, &truth));
    let sum = |name: &str| {
        proxies
            .iter()
            .map(|p| metric(p.address(), name))
            .sum::<f64>()
    };
    let shared = sum("etcd_edge_reads_shared_total");
    let reads = account.count(|op| {
        matches!(op.way, Way::Proxy(_)) && op.header().is_some() && op.writes().is_none()
    });
    println!(
        "{} operations and {} of unknown outcome in {took:?}, {rounds} rounds of outages, judged after \
         {:?}; {} versions; {shared} of {reads} reads were shared ({:.0} %), {} hedged, {} retries; \
         {} violations; failures: {:#?}",
        account.done(),
        account.unknown(),
        begun.elapsed() - took,
        truth.keys.iter().map(Vec::len).sum::<usize>(),
        100.0 * shared / reads as f64,
        sum("etcd_edge_hedged_reads_total"),
        sum("etcd_edge_retries_total"),
        wrong.len(),
        account.failures,
    );
    assert!(
        wrong.is_empty(),
        "{}",
        wrong[..wrong.len().min(10)].join("\n")
    );
    assert!(account.done() as u64 >= size, "{}", account.done());
    assert!(shared > 0.0, "no read was shared");
    assert_eq!(sum("etcd_edge_history_resets_total"), 0.0);
}

/// Each member fails in one way or another, the leader in both.
async fn outages(cluster: &mut Cluster, crew: &Crew) {
    let leader = cluster.leader();
    crew.flows(1_000).await;
    cluster.kill(leader);
    tokio::time::sleep(Duration::from_secs(1)).await;
    crew.flows(500).await;
    cluster.restart(leader);
    cluster.wait_healthy(leader);
    crew.flows(1_000).await;

    let leader = cluster.leader();
    cluster.stop(leader);
    tokio::time::sleep(Duration::from_secs(3)).await;
    crew.flows(500).await;
    cluster.resume(leader);
    cluster.wait_healthy(leader);
    crew.flows(1_000).await;

    let follower = (cluster.leader() + 1) % 3;
    cluster.kill(follower);
    tokio::time::sleep(Duration::from_millis(500)).await;
    crew.flows(500).await;
    cluster.restart(follower);
    cluster.wait_healthy(follower);
    crew.flows(1_000).await;

    let follower = (cluster.leader() + 2) % 3;
    cluster.stop(follower);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    cluster.resume(follower);
    cluster.wait_healthy(follower);
    crew.flows(1_000).await;
}
