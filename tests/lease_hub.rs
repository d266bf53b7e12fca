//! The lease hub against a naive model, over generated operations; the body is the fuzz target's.

#[path = "lease_hub/blocked.rs"]
mod blocked;
#[path = "../fuzz/bodies/lease_hub.rs"]
mod lease_hub;

use std::time::Duration;

use etcd_edge::limits;
use lease_hub::{Op, Seen};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

/// How many operations the seeded run takes; more by hand: `ETCD_EDGE_LEASE_OPS=1000000`.
const OPS: u64 = 60_000;
/// Operations of one seed.
const OPS_OF_SEED: usize = 400;

fn op() -> impl Strategy<Value = Op> {
    any::<[u8; Op::LEN]>().prop_map(Op::decode)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_heartbeat_gets_its_answer(ops in vec(op(), 0..300)) {
        lease_hub::check(ops);
    }

    #[test]
    fn any_bytes_are_a_world(data in vec(any::<u8>(), 0..600)) {
        lease_hub::run(&data);
    }
}

/// The same, long, and always the same: what it reaches is counted.
#[test]
fn seeded_worlds_are_answered_in_full() {
    let ops = std::env::var("ETCD_EDGE_LEASE_OPS");
    let ops = ops.map_or(OPS, |ops| ops.parse().expect("a number of operations"));
    let mut all = Seen::default();
    for seed in 0..ops.div_ceil(OPS_OF_SEED as u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let ops: Vec<Op> = (0..OPS_OF_SEED)
            .map(|_| Op::decode([random.u8(..), random.u8(..), random.u8(..)]))
            .collect();
        let seen = std::panic::catch_unwind(|| lease_hub::check(ops));
        all += seen.unwrap_or_else(|fault| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(fault)
        });
    }
    println!("{all:?}");
    let Seen {
        answers,
        merged,
        resent,
        expired,
        aside,
        refused,
        given_up,
        done,
        lanes,
    } = all;
    for each in [
        answers, merged, resent, expired, aside, refused, given_up, done,
    ] {
        assert!(each >= 20, "hardly reached: {all:?}");
    }
    assert!(lanes >= 5, "hardly reached: {all:?}");
}

/// Rule L4 by the clock: an etcd that takes a fifth of a millisecond for each heartbeat, as a follower
/// does, a thousand leases that are renewed each second, and a client that keeps renewing leases which
/// have expired and block their stream for a second. None of the thousand waits for much longer than
/// it takes to find out.
#[test]
fn who_blocks_waits_alone() {
    let longest = blocked::longest_wait(1_000, true);
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    // It is the others that make the difference, and there is a difference.
    let alone = blocked::longest_wait(1_000, false);
    assert!(alone < Duration::from_millis(300), "{alone:?}");
}

/// A follower far from its leader takes a millisecond for each heartbeat: 3,000 a second need more than
/// one stream.
#[test]
fn one_stream_that_cannot_keep_up_gets_help() {
    let (longest, lanes) = blocked::crowd(3_000, Duration::from_millis(1));
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!((3..=limits::LEASE_LANES).contains(&lanes), "{lanes}");
    // Where it can, it gets none.
    let (longest, lanes) = blocked::crowd(3_000, Duration::from_micros(50));
    assert!(longest < Duration::from_millis(200), "{longest:?}");
    assert_eq!(lanes, 1);
}
