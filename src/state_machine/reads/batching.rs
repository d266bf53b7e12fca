//! Batching: whether and how long a shared read waits for more clients.
//!
//! A shared read serves the clients that arrived while the previous one was in flight. On a busy
//! worker that is one read trip. Clients that are still receiving the previous response, or are
//! about to send the next request, miss it. So the next read of a large group may wait a little;
//! the worker sends responses of others meanwhile. The number of waiting clients cannot distinguish
//! a group of thirty from one of five hundred. The distinct clients of the last shared reads can.

/// Bits of the set of clients. Two clients with the same bit count as one.
const BITS: usize = 1024;

/// Groups with a smaller target do not wait.
const MIN_TARGET: usize = 16;

/// Shared reads in one counting period of distinct clients.
const READS_PER_PERIOD: u32 = 16;

/// Approximate number of distinct clients of the last shared reads.
#[derive(Debug, Clone)]
pub struct Batching {
    seen: [u64; BITS / 64],
    /// Bits set in `seen`.
    count: usize,
    /// Bits set in the previous counting period.
    previous_count: usize,
    /// Shared reads of the current counting period.
    reads: u32,
}

impl Batching {
    /// Creates a counter without clients.
    pub fn new() -> Batching {
        Batching {
            seen: [0; BITS / 64],
            count: 0,
            previous_count: 0,
            reads: 0,
        }
    }

    /// Records that a client waits for the next shared read.
    pub fn arrived(&mut self, client: u64) {
        // Client numbers are consecutive, so neighbors have different bits.
        let index = client as usize % BITS;
        let (word, bit) = (index / 64, 1 << (index % 64));
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.count += 1;
        }
    }

    /// Records that a shared read is sent.
    pub fn read_sent(&mut self) {
        self.reads += 1;
        if self.reads == READS_PER_PERIOD {
            *self = Batching {
                previous_count: self.count,
                ..Batching::new()
            };
        }
    }

    /// Returns whether the group is large enough for a wait.
    pub fn is_large(&self) -> bool {
        self.target() >= MIN_TARGET
    }

    /// Returns how many clients a read waits for: half of the recent distinct clients.
    pub fn target(&self) -> usize {
        self.count.max(self.previous_count) / 2
    }
}

impl Default for Batching {
    fn default() -> Batching {
        Batching::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared_reads(batching: &mut Batching, of: impl Fn(u64) -> std::ops::Range<u64>, count: u64) {
        for read in 0..count {
            of(read).for_each(|client| batching.arrived(client));
            batching.read_sent();
        }
    }

    #[test]
    fn repeated_clients_count_once() {
        let mut batching = Batching::new();
        shared_reads(&mut batching, |_| 0..20, 100);
        assert_eq!(batching.target(), 10);
    }

    #[test]
    fn distinct_clients_of_several_reads_add_up() {
        let mut batching = Batching::new();
        let turn = |read: u64| (read % 20) * 25..(read % 20) * 25 + 25;
        shared_reads(&mut batching, turn, 64);
        // Sixteen shared reads of twenty-five clients are four hundred clients.
        assert_eq!(batching.target(), 200);
    }

    #[test]
    fn clients_that_left_are_forgotten() {
        let mut batching = Batching::new();
        shared_reads(&mut batching, |_| 0..500, u64::from(READS_PER_PERIOD));
        assert_eq!(batching.target(), 250);
        shared_reads(&mut batching, |_| 0..4, 2 * u64::from(READS_PER_PERIOD));
        assert_eq!(batching.target(), 2);
    }

    #[test]
    fn the_count_is_bounded_by_the_bits() {
        let mut batching = Batching::new();
        (0..10_000).for_each(|client| batching.arrived(client));
        assert_eq!(batching.target(), BITS / 2);
    }
}
