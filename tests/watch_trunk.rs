//! Property tests of the trunk, against a simulated etcd, over generated operations. The body is
//! that of the fuzz target.

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

#[path = "../fuzz/bodies/watch_trunk.rs"]
mod watch_trunk;

use watch_trunk::{Op, Seen};

/// Number of operations of the seeded run. `ETCD_EDGE_TRUNK_OPS=1000000` sets a longer run.
const OPS: u64 = 60_000;
/// Operations of one seed.
const OPS_OF_SEED: usize = 600;

fn op() -> impl Strategy<Value = Op> {
    any::<[u8; Op::LEN]>().prop_map(Op::decode)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_feed_gets_all_events_of_its_range(
        world in any::<[u8; 4]>(),
        ops in vec(op(), 0..300),
    ) {
        watch_trunk::check(world, ops);
    }

    #[test]
    fn any_bytes_decode_to_a_world(data in vec(any::<u8>(), 0..600)) {
        watch_trunk::run(&data);
    }
}

/// A long run of the same model with fixed seeds. The run must reach every kind of event.
#[test]
fn seeded_trunk_runs_reach_every_event() {
    let ops = std::env::var("ETCD_EDGE_TRUNK_OPS");
    let ops = ops.map_or(OPS, |ops| ops.parse().expect("a number of operations"));
    let mut all = Seen::default();
    for seed in 0..ops.div_ceil(OPS_OF_SEED as u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = random.u32(..).to_le_bytes();
        let ops: Vec<Op> = (0..OPS_OF_SEED)
            .map(|_| Op::decode([random.u8(..), random.u8(..), random.u8(..)]))
            .collect();
        let seen = std::panic::catch_unwind(|| watch_trunk::check(world, ops));
        let seen = seen.unwrap_or_else(|fault| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(fault)
        });
        all += seen;
    }
    println!("{all:?}");
    let Seen {
        events,
        through,
        synced,
        resumed,
        compacted,
        refused,
        parts,
        verified,
        token_searches,
        token_refusals,
    } = all;
    for each in [
        events,
        through,
        synced,
        resumed,
        compacted,
        refused,
        parts,
        verified,
        token_searches,
        token_refusals,
    ] {
        assert!(each >= 20, "hardly reached: {all:?}");
    }
}
