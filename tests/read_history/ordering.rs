//! Tests of serializable reads with `--experimental-serializable-ordering`. A connection never
//! receives an earlier revision than before, even if the member that serves it lags (R5).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clients::{ClientGroup, NextOp};
use crate::history::{KEYS, Route, StoreHistory};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{current_endpoint, metric};
use crate::support::release::NEWEST;
use crate::{checker, staleness};

const ORDERING: &str = "--experimental-serializable-ordering";

/// Flags of the proxies. The last proxy has no ordering: it shows how often connections go back.
const PROXIES: [&[&str]; 3] = [
    &["--advertise-client-url=", ORDERING],
    &["--advertise-client-url=", ORDERING, "--cache-bytes=0"],
    &["--advertise-client-url=", "--cache-bytes=0"],
];

/// Number of readers of each proxy.
const READERS: usize = 8;
const WRITERS: usize = 4;
/// Number of rounds of outages. If no round has found a lagging member, there are more, up to the
/// maximum.
const ROUNDS: usize = 6;
const MAX_ROUNDS: usize = 20;

/// Returns the next operation: mostly reads. A write or a linearizable read raises the connection's
/// floor.
fn next_op(rng: &mut Rng) -> NextOp {
    let key = rng.usize(..=KEYS);
    match rng.u32(..50) {
        0 => NextOp::Put(key % KEYS),
        other => NextOp::Read {
            key: (key < KEYS).then_some(key),
            serializable: other > 1,
        },
    }
}

/// Returns the member that serves a proxy.
fn member(cluster: &Cluster, proxy: &Proxy) -> usize {
    let endpoint = current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| endpoint.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{endpoint} is not a member"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordering_keeps_connections_from_going_back_at_failover() {
    let begun = Instant::now();
    let mut cluster = Cluster::start(NEWEST, 3);
    // With two endpoints, the proxy can only fail over to the other one.
    let leader = cluster.leader();
    let pair = [(leader + 1) % 3, (leader + 2) % 3];
    let endpoints = pair.map(|member| cluster.endpoint(member)).join(",");
    let proxies = PROXIES.map(|flags| {
        let endpoints = format!("--endpoints={endpoints}");
        Proxy::start_with(&[&[&endpoints[..]], flags].concat())
    });
    let mut clients = ClientGroup::new();
    for (number, proxy) in proxies.iter().enumerate() {
        for _ in 0..READERS {
            let address = [proxy.address().to_owned()];
            clients.add(
                Route::Proxy(number),
                &address,
                Duration::from_millis(3),
                next_op,
            );
        }
    }
    // Enough writes for a paused member to have a long catch-up.
    for _ in 0..WRITERS {
        let address = [cluster.endpoint(leader)];
        clients.add(Route::Direct, &address, Duration::ZERO, |rng| {
            NextOp::Put(rng.usize(..KEYS))
        });
    }
    let stale_retried = || -> f64 {
        let each = |proxy: &Proxy| metric(proxy.address(), "etcd_edge_stale_reads_retried_total");
        proxies.iter().map(each).sum()
    };
    let mut rounds = 0;
    while rounds < ROUNDS || stale_retried() == 0.0 && rounds < MAX_ROUNDS {
        rounds += 1;
        clients.wait_ops(1_000).await;
        // One member lags. When the serving member is killed, clients wait for the lagging one. It
        // serves them again at the time at which it reaches its leader again.
        let serving = member(&cluster, &proxies[0]);
        let lagging = pair[usize::from(serving == pair[0])];
        cluster.stop(lagging);
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.kill(serving);
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.resume(lagging);
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.restart(serving);
        cluster.wait_healthy(lagging);
        cluster.wait_healthy(serving);
    }
    clients.wait_ops(300).await;
    println!("{rounds} rounds in {:?}", begun.elapsed());
    check_history(&cluster, &proxies, PROXIES, clients).await;
    assert!(stale_retried() > 0.0, "no member lagged");
}

/// Flags of the proxies that send each call to another member than the previous one.
const ROUND: [&[&str]; 2] = [
    &["--endpoint-policy=round-robin", ORDERING],
    &[
        "--endpoint-policy=least-loaded",
        ORDERING,
        "--cache-bytes=0",
    ],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordering_keeps_connections_from_going_back_with_load_balancing() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxies =
        ROUND.map(|flags| Proxy::start(&cluster, &[&["--advertise-client-url="], flags].concat()));
    let leader = cluster.leader();
    let mut clients = ClientGroup::new();
    for (number, proxy) in proxies.iter().enumerate() {
        for _ in 0..READERS {
            let address = [proxy.address().to_owned()];
            clients.add(
                Route::Proxy(number),
                &address,
                Duration::from_millis(3),
                next_op,
            );
        }
    }
    for _ in 0..WRITERS {
        let address = [cluster.endpoint(leader)];
        clients.add(Route::Direct, &address, Duration::ZERO, |rng| {
            NextOp::Put(rng.usize(..KEYS))
        });
    }
    for round in 0..ROUNDS {
        clients.wait_ops(1_000).await;
        // One member lags, and serves calls like the others once it continues.
        let lagging = (leader + 1 + round % 2) % 3;
        cluster.stop(lagging);
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.resume(lagging);
        clients.wait_ops(500).await;
    }
    let stale_retried: f64 = proxies
        .iter()
        .map(|proxy| metric(proxy.address(), "etcd_edge_stale_reads_retried_total"))
        .sum();
    check_history(&cluster, &proxies, ROUND, clients).await;
    assert!(stale_retried > 0.0, "no member lagged");
}

/// Stops the clients and checks their results. No connection to a proxy with ordering may go back
/// in time.
async fn check_history<const N: usize>(
    cluster: &Cluster,
    proxies: &[Proxy; N],
    flags: [&[&str]; N],
    clients: ClientGroup,
) {
    let report = clients.finish().await;
    let history = StoreHistory::of(&cluster.endpoint(0)).await;
    let ops = &report.ops;
    let mut violations = checker::check_content(ops, &history);
    println!(
        "{} operations and {} of unknown outcome; failures: {:#?}",
        report.done(),
        report.unknown(),
        report.failures
    );
    for (number, proxy) in proxies.iter().enumerate() {
        let back = staleness::back_in_time(ops, Route::Proxy(number));
        let count = |name: &str| metric(proxy.address(), name);
        println!(
            "{:?}: {} reads, {} cache hits, {} stale reads retried, {} went back",
            flags[number],
            staleness::reads(ops, Route::Proxy(number)),
            count("etcd_edge_cache_hits_total"),
            count("etcd_edge_stale_reads_retried_total"),
            back.len(),
        );
        assert_eq!(count("etcd_edge_history_resets_total"), 0.0);
        if flags[number].contains(&ORDERING) {
            violations.extend(back);
        }
    }
    println!("{} violations", violations.len());
    assert!(
        violations.is_empty(),
        "{}",
        violations[..violations.len().min(10)].join("\n")
    );
}
