//! Fuzz body for read coalescing, against its own accounting. Every reader gets one response, from
//! an upstream read that was sent after the reader arrived (R1). Two upstream reads of one request
//! are never in flight at a time.
//!
//! The input is a list of operations, two bytes each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etcd_edge::state_machine::reads::coalescing::{ArrivalAction, Coalescing, ReturnAction};

/// Maximum number of operations of one run.
const MAX_OPS: usize = 2_048;

struct World {
    sharing: Coalescing<u8, Vec<u64>>,
    /// Counter that increases with every event. The id of a reader is the moment of its request.
    moment: u64,
    /// Upstream reads in flight: the moment of sending, and the readers that wait for each. Without
    /// readers, the entry is a batch that is still open, with the moment it was opened.
    in_flight: BTreeMap<u8, (u64, Vec<u64>)>,
    waiting: u64,
    served: u64,
    reads: u64,
    clock: Instant,
}

/// Decodes any bytes as operations and runs them.
pub(crate) fn run(data: &[u8]) {
    let mut world = World {
        sharing: Coalescing::new(),
        moment: 0,
        in_flight: BTreeMap::new(),
        waiting: 0,
        served: 0,
        reads: 0,
        clock: Instant::now(),
    };
    for op in data.chunks_exact(2).take(MAX_OPS) {
        world.moment += 1;
        let key = op[1] % 4;
        match op[0] % 7 {
            0 | 1 => world.complete(key),
            2 => (0..op[1] / 4).for_each(|_| world.request(key)),
            3 => world.clock += Duration::from_millis(u64::from(op[1])),
            _ => world.request(key),
        }
        assert_eq!(world.sharing.len(), world.in_flight.len());
    }
    for key in 0..4 {
        // A read in flight, then an open batch that is sent, then nothing.
        (0..3).for_each(|_| world.complete(key));
    }
    assert!(world.sharing.is_empty(), "a read never completes");
    assert_eq!(world.waiting, 0, "a reader never gets a response");
    assert!(
        world.reads <= world.served,
        "an upstream read without a reader"
    );
}

impl World {
    fn request(&mut self, key: u8) {
        // Each reader is another client, even if several arrive at once.
        self.moment += 1;
        let reader = self.moment;
        self.waiting += 1;
        let clock = self.clock;
        match self.sharing.request(key, reader % 64, clock, Vec::new) {
            ArrivalAction::Send => self.send(key, vec![reader]),
            ArrivalAction::Wait(next) => next.push(reader),
            ArrivalAction::Batch(next, enough) => {
                next.push(reader);
                assert_eq!(*next, [reader], "an earlier reader was left waiting");
                assert!(enough > 1, "one reader is a batch");
                let before = self.in_flight.insert(key, (self.moment, Vec::new()));
                assert!(before.is_none(), "a batch opens while a read is in flight");
            }
        }
    }

    fn send(&mut self, key: u8, readers: Vec<u64>) {
        self.moment += 1;
        self.reads += 1;
        let before = self.in_flight.insert(key, (self.moment, readers));
        assert!(before.is_none(), "two reads of one request are in flight");
    }

    fn complete(&mut self, key: u8) {
        let Some((sent, readers)) = self.in_flight.remove(&key) else {
            return;
        };
        // An open batch has no readers here: its pause is over, and it is sent now.
        let batch = readers.is_empty();
        for reader in readers {
            assert!(
                reader < sent,
                "the upstream read was sent before the reader arrived (R1)"
            );
            self.served += 1;
            self.waiting -= 1;
        }
        match self.sharing.returned(&key, !batch) {
            ReturnAction::Idle => {}
            ReturnAction::Send(next) => {
                assert!(!next.is_empty(), "a read without readers");
                self.send(key, next);
            }
            ReturnAction::Batch(next, enough) => {
                assert!(!batch, "a batch is never sent");
                assert!(!next.is_empty() && next.len() < enough, "the batch is full");
                self.in_flight.insert(key, (self.moment, Vec::new()));
            }
        }
    }
}
