//! Serializable reads with `--experimental-serializable-ordering`: a connection is never told an
//! earlier revision than before, whatever the member that serves it lags behind (R5).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clients::{Crew, Wish};
use crate::history::{KEYS, Truth, Way};
use crate::support::cluster::Cluster;
use crate::support::pages::{metric, serving};
use crate::support::proxy::Proxy;
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
    let endpoint = serving(proxy).expect("an endpoint was picked");
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
    let account = crew.finish().await;
    let took = begun.elapsed();
    let truth = Truth::of(&cluster.endpoint(0)).await;
    let ops = &account.ops;
    let mut wrong = checker::content(ops, &truth);
    println!(
        "{} operations and {} of unknown outcome in {took:?}; failures: {:#?}",
        account.done(),
        account.unknown(),
        account.failures
    );
    for (number, proxy) in proxies.iter().enumerate() {
        let back = bounds::back(ops, Way::Proxy(number));
        let counted = |name: &str| metric(proxy.address(), name);
        println!(
            "{:?}: {} reads, {} of them kept, {} asked again, {} went back",
            PROXIES[number],
            bounds::reads(ops, Way::Proxy(number)),
            counted("etcd_edge_cache_hits_total"),
            counted("etcd_edge_reads_overtaken_total"),
            back.len(),
        );
        assert_eq!(counted("etcd_edge_history_resets_total"), 0.0);
        if PROXIES[number].contains(&ORDERING) {
            wrong.extend(back);
        }
    }
    println!("{} violations in {rounds} rounds", wrong.len());
    assert!(
        wrong.is_empty(),
        "{}",
        wrong[..wrong.len().min(10)].join("\n")
    );
    assert!(overtaken() > 0.0, "no member was ever behind");
}
