//! Test of serializable reads through proxies with one endpoint, a follower, which serves every
//! read that is not cached. It measures the age of the responses while members fail (R2, R3, R5).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clients::{ClientGroup, NextOp};
use crate::history::{KEYS, Route, StoreHistory};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{metric, wait_metric};
use crate::support::release::NEWEST;
use crate::{checker, staleness};

/// Flags of the proxies, and the age limit of their responses.
const PROXIES: [(&str, Duration); 2] = [
    // The default value.
    ("--cache-max-age=1s", Duration::from_secs(1)),
    ("--cache-max-age=300ms", Duration::from_millis(300)),
];

/// Keys 0 and 1 are written only at etcd, 2 and 3 through the first proxy, 4 through the second,
/// and 5 by all writers.
const AT_ETCD: [usize; 3] = [0, 1, 5];
const THROUGH: [&[usize]; 2] = [&[2, 3, 5], &[4, 5]];

/// Number of readers of each kind and proxy.
const READERS: usize = 4;

/// Pauses of clients that read a key of their own, in hundredths of the age limit. The proxy
/// refreshes a popular entry before it expires; these entries are not popular.
const RARE: [u32; 4] = [45, 95, 103, 130];

/// Time limit for an entry to become watch-backed on a busy machine.
const WATCH_BACKED_WITHIN: Duration = Duration::from_secs(30);

/// Reads one key so often that a watch backs its entry.
fn hot(_: &mut Rng) -> NextOp {
    NextOp::Read {
        key: Some(0),
        serializable: true,
    }
}

/// Reads any key, or all keys, and the hot key rarely. A connection that has seen a later revision
/// in another response rejects the hot entry, and its replacement must first become popular again.
fn mixed(rng: &mut Rng) -> NextOp {
    let key = match rng.u32(..100) {
        0 => 0,
        _ => rng.usize(1..=KEYS),
    };
    NextOp::Read {
        key: (key < KEYS).then_some(key),
        serializable: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_reads_respect_their_bounds() {
    let begun = Instant::now();
    let mut cluster = Cluster::start(NEWEST, 3);
    let follower = (cluster.leader() + 1) % 3;
    let endpoint = cluster.endpoint(follower);
    let proxies = PROXIES.map(|(flag, _)| {
        let endpoints = format!("--endpoints={endpoint}");
        Proxy::start_with(&[&endpoints[..], flag, "--advertise-client-url="])
    });
    let mut clients = ClientGroup::new();
    for (number, proxy) in proxies.iter().enumerate() {
        let (route, address) = (Route::Proxy(number), [proxy.address().to_owned()]);
        for _ in 0..READERS {
            clients.add(route, &address, Duration::from_millis(3), hot);
            clients.add(route, &address, Duration::from_millis(3), mixed);
        }
        for hundredths in RARE {
            let pause = PROXIES[number].1 * hundredths / 100;
            clients.add(route, &address, pause, |_| NextOp::Own(1));
        }
        // A writer also reads its own writes.
        let keys = THROUGH[number];
        clients.add(route, &address, Duration::from_millis(40), |rng| {
            let key = keys[rng.usize(..keys.len())];
            match rng.bool() {
                true => NextOp::Put(key),
                false => NextOp::Read {
                    key: Some(key),
                    serializable: true,
                },
            }
        });
    }
    for member in (0..3).filter(|member| *member != follower) {
        let address = [cluster.endpoint(member)];
        clients.add(Route::Direct, &address, Duration::from_millis(50), |rng| {
            NextOp::Put(AT_ETCD[rng.usize(..AT_ETCD.len())])
        });
    }
    for _ in 0..2 {
        let address = [endpoint.clone()];
        clients.add(Route::Observer, &address, Duration::from_millis(2), |_| {
            NextOp::Read {
                key: Some(0),
                serializable: true,
            }
        });
    }
    // Wait long enough for a watch to back the hot entry, at least for a while.
    let sleep = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    sleep(6);
    let entries = "etcd_edge_cache_watch_backed_entries";
    wait_metric(
        proxies[0].address(),
        entries,
        WATCH_BACKED_WITHIN,
        |entries| entries > 0.0,
    );
    sleep(1);
    cluster.kill(follower);
    sleep(1);
    cluster.restart(follower);
    cluster.wait_healthy(follower);
    sleep(4);
    cluster.stop(follower);
    sleep(2);
    cluster.resume(follower);
    cluster.wait_healthy(follower);
    sleep(4);
    let leader = cluster.leader();
    if leader != follower {
        cluster.kill(leader);
        sleep(1);
        cluster.restart(leader);
        cluster.wait_healthy(leader);
    }
    sleep(2);
    let leader = cluster.leader();
    cluster.stop(leader);
    sleep(2);
    cluster.resume(leader);
    cluster.wait_healthy(leader);
    sleep(2);
    let report = clients.finish().await;
    let took = begun.elapsed();
    let history = StoreHistory::of(&cluster.endpoint(0)).await;
    let ops = &report.ops;
    let mut violations = checker::check_content(ops, &history);
    println!(
        "{} operations and {} of unknown outcome in {took:?}; failures: {:#?}",
        report.done(),
        report.unknown(),
        report.failures
    );
    for (number, (flag, max_age)) in PROXIES.iter().enumerate() {
        let route = Route::Proxy(number);
        violations.extend(staleness::older_than_write(ops, route));
        let (old, oldest) = staleness::older_than_limit(ops, &history, route, *max_age);
        violations.extend(old);
        violations.extend(staleness::back_in_time(ops, route));
        let count = |name: &str| metric(proxies[number].address(), name);
        let (reads, hits) = (
            staleness::reads(ops, route),
            count("etcd_edge_cache_hits_total"),
        );
        println!(
            "{flag}: {reads} reads, {hits} cache hits, {} refreshes, {} rejected, the oldest {oldest:?}, {} \
             watch-backed entries at the end",
            count("etcd_edge_cache_refreshes_total"),
            count("etcd_edge_cache_rejected_total"),
            count("etcd_edge_cache_watch_backed_entries"),
        );
        assert_eq!(count("etcd_edge_history_resets_total"), 0.0);
        assert!(hits > reads as f64 / 2.0, "{hits} of {reads}");
        // The measurement works: some responses have a known age.
        assert!(oldest > *max_age / 10, "{oldest:?}");
    }
    println!("{} violations", violations.len());
    assert!(
        violations.is_empty(),
        "{}",
        violations[..violations.len().min(10)].join("\n")
    );
}
