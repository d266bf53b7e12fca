//! Reads that share, against their own account: everybody is answered once, by a read that left after
//! he asked, and of one question two are never on their way.
//!
//! The input is a list of operations, two bytes each.

use std::collections::BTreeMap;

use etcd_edge::machine::reads::sharing::Sharing;

/// Most operations of one run.
const MAX_OPS: usize = 2_048;

#[derive(Default)]
struct World {
    sharing: Sharing<u8, Vec<u64>>,
    /// Counts everything that happens; a reader's name is the moment he asked.
    moment: u64,
    /// What is on its way: when it left, and for whom.
    away: BTreeMap<u8, (u64, Vec<u64>)>,
    waiting: u64,
    answered: u64,
    reads: u64,
}

/// Any bytes are operations.
pub(crate) fn run(data: &[u8]) {
    let mut world = World::default();
    for op in data.chunks_exact(2).take(MAX_OPS) {
        world.moment += 1;
        let key = op[1] % 4;
        match op[0] % 3 {
            0 => world.returned(key),
            _ => world.ask(key),
        }
        assert_eq!(world.sharing.len(), world.away.len());
    }
    for key in 0..4 {
        // One on its way, one that waits, and then nothing.
        (0..2).for_each(|_| world.returned(key));
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
        let reader = self.moment;
        self.waiting += 1;
        match self.sharing.ask(key, Vec::new) {
            Some(next) => next.push(reader),
            None => self.send(key, vec![reader]),
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
        for reader in readers {
            assert!(
                reader < left,
                "answered by a read that left before he asked (R1)"
            );
            self.answered += 1;
            self.waiting -= 1;
        }
        if let Some(next) = self.sharing.returned(&key) {
            self.send(key, next);
        }
    }
}
