//! Reads that share, against their own account: everybody is answered once, by a read that left after
//! he asked, and of one question two are never on their way.
//!
//! The input is a list of operations, two bytes each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etcd_edge::machine::reads::sharing::{Asked, Returned, Sharing};

/// Most operations of one run.
const MAX_OPS: usize = 2_048;

struct World {
    sharing: Sharing<u8, Vec<u64>>,
    /// Counts everything that happens; a reader's name is the moment he asked.
    moment: u64,
    /// What is on its way: when it left, and for whom; for nobody, when those who wait for it gather.
    away: BTreeMap<u8, (u64, Vec<u64>)>,
    waiting: u64,
    answered: u64,
    reads: u64,
    clock: Instant,
}

/// Any bytes are operations.
pub(crate) fn run(data: &[u8]) {
    let mut world = World {
        sharing: Sharing::new(),
        moment: 0,
        away: BTreeMap::new(),
        waiting: 0,
        answered: 0,
        reads: 0,
        clock: Instant::now(),
    };
    for op in data.chunks_exact(2).take(MAX_OPS) {
        world.moment += 1;
        let key = op[1] % 4;
        match op[0] % 7 {
            0 | 1 => world.returned(key),
            2 => (0..op[1] / 4).for_each(|_| world.ask(key)),
            3 => world.clock += Duration::from_millis(u64::from(op[1])),
            _ => world.ask(key),
        }
        assert_eq!(world.sharing.len(), world.away.len());
    }
    for key in 0..4 {
        // One on its way, one that gathers, which then goes, and then nothing.
        (0..3).for_each(|_| world.returned(key));
    }
    assert!(world.sharing.is_empty(), "something is on its way for ever");
    assert_eq!(world.waiting, 0, "somebody waits for ever");
    assert!(
        world.reads <= world.answered,
        "a read that nobody asked for"
    );
}

impl World {
    fn ask(&mut self, key: u8) {
        // Each is another client, also of those who come at once.
        self.moment += 1;
        let reader = self.moment;
        self.waiting += 1;
        let clock = self.clock;
        match self.sharing.ask(key, reader % 64, clock, Vec::new) {
            Asked::Go => self.send(key, vec![reader]),
            Asked::Wait(next) => next.push(reader),
            Asked::Gather(next, enough) => {
                next.push(reader);
                assert_eq!(*next, [reader], "who asked before him was left waiting");
                assert!(enough > 1, "one makes a crowd");
                let before = self.away.insert(key, (self.moment, Vec::new()));
                assert!(before.is_none(), "one gathers while one is on its way");
            }
        }
    }

    fn send(&mut self, key: u8, readers: Vec<u64>) {
        self.moment += 1;
        self.reads += 1;
        let before = self.away.insert(key, (self.moment, readers));
        assert!(before.is_none(), "two of one question are on their way");
    }

    fn returned(&mut self, key: u8) {
        let Some((left, readers)) = self.away.remove(&key) else {
            return;
        };
        // Those who gather have waited for their pause: they go now.
        let gathered = readers.is_empty();
        for reader in readers {
            assert!(
                reader < left,
                "answered by a read that left before he asked (R1)"
            );
            self.answered += 1;
            self.waiting -= 1;
        }
        match self.sharing.returned(&key, !gathered) {
            Returned::Nobody => {}
            Returned::Go(next) => {
                assert!(!next.is_empty(), "a read for nobody");
                self.send(key, next);
            }
            Returned::Gather(next, enough) => {
                assert!(!gathered, "a crowd gathers for ever");
                assert!(!next.is_empty() && next.len() < enough, "enough are there");
                self.away.insert(key, (self.moment, Vec::new()));
            }
        }
    }
}
