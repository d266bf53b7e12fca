//! Serializable reads with `--experimental-serializable-ordering`: a connection is never told an
//! earlier revision than before, whatever the member that serves it lags behind (R5).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clients::{Crew, Wish};
use crate::history::{KEYS, Truth, Way};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{current_endpoint, metric};
use crate::support::release::NEWEST;
use crate::{bounds, checker};

const ORDERING: &str = "--experimental-serializable-ordering";

/// The last keeps no order: it shows that there is something to keep.
const PROXIES: [&[&str]; 3] = [
    &["--advertise-client-url=", ORDERING],
    &["--advertise-client-url=", ORDERING, "--cache-bytes=0"],
    &["--advertise-client-url=", "--cache-bytes=0"],
];

/// Of each proxy.
const READERS: usize = 8;
const WRITERS: usize = 4;
/// Outages: so many, and more of them, within reason, if by then none has found a member behind.
const ROUNDS: usize = 6;
const MOST_ROUNDS: usize = 20;

/// Mostly reads, and now and then a write or a linearizable read, which show more.
fn wish(rng: &mut Rng) -> Wish {
    let key = rng.usize(..=KEYS);
    match rng.u32(..50) {
        0 => Wish::Put(key % KEYS),
        other => Wish::Read {
            key: (key < KEYS).then_some(key),
            serializable: other > 1,
        },
    }
}

/// The member that serves a proxy.
fn member(cluster: &Cluster, proxy: &Proxy) -> usize {
    let endpoint = current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| endpoint.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{endpoint} is no member"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ordering_no_connection_goes_back() {
    let begun = Instant::now();
    let mut cluster = Cluster::start(NEWEST, 3);
    // Between two of them there is no choice of where to go when one fails.
    let leader = cluster.leader();
    let pair = [(leader + 1) % 3, (leader + 2) % 3];
    let endpoints = pair.map(|member| cluster.endpoint(member)).join(",");
    let proxies = PROXIES.map(|flags| {
        let endpoints = format!("--endpoints={endpoints}");
        Proxy::start_with(&[&[&endpoints[..]], flags].concat())
    });
    let mut crew = Crew::new();
    for (number, proxy) in proxies.iter().enumerate() {
        for _ in 0..READERS {
            let address = [proxy.address().to_owned()];
            crew.add(Way::Proxy(number), &address, Duration::from_millis(3), wish);
        }
    }
    // Enough for who was stopped to have much to catch up with.
    for _ in 0..WRITERS {
        let address = [cluster.endpoint(leader)];
        crew.add(Way::Direct, &address, Duration::ZERO, |rng| {
            Wish::Put(rng.usize(..KEYS))
        });
    }
    let overtaken = || -> f64 {
        let each = |proxy: &Proxy| metric(proxy.address(), "etcd_edge_reads_overtaken_total");
        proxies.iter().map(each).sum()
    };
    let mut rounds = 0;
    while rounds < ROUNDS || overtaken() == 0.0 && rounds < MOST_ROUNDS {
        rounds += 1;
        crew.flows(1_000).await;
        // One lags behind. When the one that serves is gone, clients wait for it, and it is theirs and
        // its leader's at the same time.
        let serves = member(&cluster, &proxies[0]);
        let lags = pair[usize::from(serves == pair[0])];
        cluster.stop(lags);
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.kill(serves);
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.resume(lags);
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.restart(serves);
        cluster.wait_healthy(lags);
        cluster.wait_healthy(serves);
    }
    crew.flows(300).await;
    println!("{rounds} rounds in {:?}", begun.elapsed());
    judge(&cluster, &proxies, PROXIES, crew).await;
    assert!(overtaken() > 0.0, "no member was ever behind");
}

/// Each call of these goes to another member than the one before.
const ROUND: [&[&str]; 2] = [
    &["--endpoint-policy=round-robin", ORDERING],
    &[
        "--endpoint-policy=least-loaded",
        ORDERING,
        "--cache-bytes=0",
    ],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_calls_go_round_no_connection_goes_back() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxies =
        ROUND.map(|flags| Proxy::start(&cluster, &[&["--advertise-client-url="], flags].concat()));
    let leader = cluster.leader();
    let mut crew = Crew::new();
    for (number, proxy) in proxies.iter().enumerate() {
        for _ in 0..READERS {
            let address = [proxy.address().to_owned()];
            crew.add(Way::Proxy(number), &address, Duration::from_millis(3), wish);
        }
    }
    for _ in 0..WRITERS {
        let address = [cluster.endpoint(leader)];
        crew.add(Way::Direct, &address, Duration::ZERO, |rng| {
            Wish::Put(rng.usize(..KEYS))
        });
    }
    for round in 0..ROUNDS {
        crew.flows(1_000).await;
        // One lags behind, and answers with the others once it goes on.
        let lags = (leader + 1 + round % 2) % 3;
        cluster.stop(lags);
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.resume(lags);
        crew.flows(500).await;
    }
    let overtaken: f64 = proxies
        .iter()
        .map(|proxy| metric(proxy.address(), "etcd_edge_reads_overtaken_total"))
        .sum();
    judge(&cluster, &proxies, ROUND, crew).await;
    assert!(overtaken > 0.0, "no member was ever behind");
}

/// Ends the crew and looks at all that it was told: of proxies that keep the order, no connection went
/// back.
async fn judge<const N: usize>(
    cluster: &Cluster,
    proxies: &[Proxy; N],
    flags: [&[&str]; N],
    crew: Crew,
) {
    let account = crew.finish().await;
    let truth = Truth::of(&cluster.endpoint(0)).await;
    let ops = &account.ops;
    let mut wrong = checker::content(ops, &truth);
    println!(
        "{} operations and {} of unknown outcome; failures: {:#?}",
        account.done(),
        account.unknown(),
        account.failures
    );
    for (number, proxy) in proxies.iter().enumerate() {
        let back = bounds::back(ops, Way::Proxy(number));
        let counted = |name: &str| metric(proxy.address(), name);
        println!(
            "{:?}: {} reads, {} of them kept, {} asked again, {} went back",
            flags[number],
            bounds::reads(ops, Way::Proxy(number)),
            counted("etcd_edge_cache_hits_total"),
            counted("etcd_edge_reads_overtaken_total"),
            back.len(),
        );
        assert_eq!(counted("etcd_edge_history_resets_total"), 0.0);
        if flags[number].contains(&ORDERING) {
            wrong.extend(back);
        }
    }
    println!("{} violations", wrong.len());
    assert!(
        wrong.is_empty(),
        "{}",
        wrong[..wrong.len().min(10)].join("\n")
    );
}
