//! Serializable reads through proxies whose one endpoint is a follower, so that all that is not kept
//! comes from there: how old they are, while members fail (R2, R3, R5).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clients::{Crew, Wish};
use crate::history::{KEYS, Truth, Way};
use crate::support::cluster::Cluster;
use crate::support::pages::{metric, wait_metric};
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::{bounds, checker};

/// The proxies: their flags, and how old their answers may be.
const PROXIES: [(&str, Duration); 2] = [
    // The default.
    ("--cache-max-age=1s", Duration::from_secs(1)),
    ("--cache-max-age=300ms", Duration::from_millis(300)),
];

/// Keys 0 and 1 are written at etcd only, 2 and 3 through the first proxy, 4 through the second, and 5
/// by all.
const AT_ETCD: [usize; 3] = [0, 1, 5];
const THROUGH: [&[usize]; 2] = [&[2, 3, 5], &[4, 5]];

/// Of each kind, of each proxy.
const READERS: usize = 4;

/// Some read what nobody else does, and seldom: after so many hundredths of the time an answer is kept.
/// What is asked for often is asked for anew before it is too old.
const SELDOM: [u32; 4] = [45, 95, 103, 130];

/// How long it may take on a busy machine until an answer is covered.
const COVERED_WITHIN: Duration = Duration::from_secs(30);

/// One key, again and again: so often that it is covered by a watch.
fn hot(_: &mut Rng) -> Wish {
    Wish::Read {
        key: Some(0),
        serializable: true,
    }
}

/// Any key, or all. The hot one seldom: to whom has been shown more by other answers the one that is
/// kept is too old, and what takes its place has yet to be asked for often.
fn mixed(rng: &mut Rng) -> Wish {
    let key = match rng.u32(..100) {
        0 => 0,
        _ => rng.usize(1..=KEYS),
    };
    Wish::Read {
        key: (key < KEYS).then_some(key),
        serializable: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_reads_are_bounded() {
    let begun = Instant::now();
    let mut cluster = Cluster::start(NEWEST, 3);
    let follower = (cluster.leader() + 1) % 3;
    let endpoint = cluster.endpoint(follower);
    let proxies = PROXIES.map(|(flag, _)| {
        let endpoints = format!("--endpoints={endpoint}");
        Proxy::start_with(&[&endpoints[..], flag, "--advertise-client-url="])
    });
    let mut crew = Crew::new();
    for (number, proxy) in proxies.iter().enumerate() {
        let (way, address) = (Way::Proxy(number), [proxy.address().to_owned()]);
        for _ in 0..READERS {
            crew.add(way, &address, Duration::from_millis(3), hot);
            crew.add(way, &address, Duration::from_millis(3), mixed);
        }
        for hundredths in SELDOM {
            let pause = PROXIES[number].1 * hundredths / 100;
            crew.add(way, &address, pause, |_| Wish::Own(1));
        }
        // Who writes reads what he wrote.
        let keys = THROUGH[number];
        crew.add(way, &address, Duration::from_millis(40), |rng| {
            let key = keys[rng.usize(..keys.len())];
            match rng.bool() {
                true => Wish::Put(key),
                false => Wish::Read {
                    key: Some(key),
                    serializable: true,
                },
            }
        });
    }
    for member in (0..3).filter(|member| *member != follower) {
        let address = [cluster.endpoint(member)];
        crew.add(Way::Direct, &address, Duration::from_millis(50), |rng| {
            Wish::Put(AT_ETCD[rng.usize(..AT_ETCD.len())])
        });
    }
    for _ in 0..2 {
        let address = [endpoint.clone()];
        crew.add(Way::Observer, &address, Duration::from_millis(2), |_| {
            Wish::Read {
                key: Some(0),
                serializable: true,
            }
        });
    }
    // Long enough for what is hot to be covered by a watch, at least for a while.
    let rest = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    rest(6);
    let covers = "etcd_edge_cache_covers";
    wait_metric(proxies[0].address(), covers, COVERED_WITHIN, |covers| {
        covers > 0.0
    });
    rest(1);
    cluster.kill(follower);
    rest(1);
    cluster.restart(follower);
    cluster.wait_healthy(follower);
    rest(4);
    cluster.stop(follower);
    rest(2);
    cluster.resume(follower);
    cluster.wait_healthy(follower);
    rest(4);
    let leader = cluster.leader();
    if leader != follower {
        cluster.kill(leader);
        rest(1);
        cluster.restart(leader);
        cluster.wait_healthy(leader);
    }
    rest(2);
    let leader = cluster.leader();
    cluster.stop(leader);
    rest(2);
    cluster.resume(leader);
    cluster.wait_healthy(leader);
    rest(2);
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
    for (number, (flag, max_age)) in PROXIES.iter().enumerate() {
        let way = Way::Proxy(number);
        wrong.extend(bounds::written(ops, way));
        let (old, oldest) = bounds::aged(ops, &truth, way, *max_age);
        wrong.extend(old);
        wrong.extend(bounds::back(ops, way));
        let counted = |name: &str| metric(proxies[number].address(), name);
        let (reads, hits) = (
            bounds::reads(ops, way),
            counted("etcd_edge_cache_hits_total"),
        );
        println!(
            "{flag}: {reads} reads, {hits} answered from what was kept, {} renewed, invalidated {}, the \
             oldest {oldest:?}, {} covers at the end",
            counted("etcd_edge_cache_renewed_total"),
            counted("etcd_edge_cache_invalidated_total"),
            counted("etcd_edge_cache_covers"),
        );
        assert_eq!(counted("etcd_edge_history_resets_total"), 0.0);
        assert!(hits > reads as f64 / 2.0, "{hits} of {reads}");
        // It is measured: answers are known to be of some age.
        assert!(oldest > *max_age / 10, "{oldest:?}");
    }
    println!("{} violations", wrong.len());
    assert!(
        wrong.is_empty(),
        "{}",
        wrong[..wrong.len().min(10)].join("\n")
    );
}
