//! Property tests of the state machines for reads, against naive models, over generated operations.
//! The bodies are those of the fuzz targets.

#[path = "../fuzz/bodies/read_cache.rs"]
mod read_cache;
#[path = "../fuzz/bodies/read_sharing.rs"]
mod read_sharing;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};

/// Number of operations of the seeded run. `ETCD_EDGE_READ_OPS=10000000` sets a longer run.
const OPS: u64 = 300_000;
/// Operations of one seed.
const OPS_OF_SEED: usize = 500;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cache_hits_are_true(data in vec(any::<u8>(), 0..900)) {
        read_cache::run(&data);
    }

    #[test]
    fn readers_share_only_a_read_sent_after_they_arrived(data in vec(any::<u8>(), 0..600)) {
        read_sharing::run(&data);
    }
}

/// A long run of the same model with fixed seeds. The run must reach every kind of event.
#[test]
fn seeded_cache_runs_reach_every_event() {
    let ops = std::env::var("ETCD_EDGE_READ_OPS");
    let ops = ops.map_or(OPS, |ops| ops.parse().expect("a number of operations"));
    let mut all = read_cache::Seen::default();
    for seed in 0..ops.div_ceil(OPS_OF_SEED as u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let ops: Vec<read_cache::Op> = (0..OPS_OF_SEED)
            .map(|_| read_cache::Op::decode([random.u8(..), random.u8(..), random.u8(..)]))
            .collect();
        let seen = std::panic::catch_unwind(|| read_cache::check(ops));
        all += seen.unwrap_or_else(|fault| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(fault)
        });
    }
    println!("{all:?}");
    let read_cache::Seen {
        hits,
        proved,
        advanced,
        misses,
        acknowledged,
        unsure,
    } = all;
    for each in [hits, proved, advanced, misses, acknowledged, unsure] {
        assert!(each >= 20, "hardly reached: {all:?}");
    }
}
