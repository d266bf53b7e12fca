//! Batching: whether and how long a shared read waits for more clients.
//!
//! A shared read serves the clients that arrived while the previous one was in flight. On a busy
//! worker that is one round trip. Clients that are still receiving the previous response, or are
//! about to send the next request, miss it. So the next read of a large group may wait a little; the
//! worker sends responses of others meanwhile. The number of waiting clients cannot distinguish a
//! group of thirty from one of five hundred. The distinct clients of the last rounds can.

/// Bits of the set of clients. Two clients with the same bit count as one.
const PLACES: usize = 1024;

/// Groups with a smaller target do not wait.
const LEAST: usize = 16;

/// Rounds over which distinct clients are counted.
const ROUNDS: u32 = 16;

/// Approximate number of distinct clients in the last rounds.
#[derive(Debug, Clone)]
pub struct Batching {
    came: [u64; PLACES / 64],
    /// Bits set in `seen`.
    size: usize,
    /// Bits set in the previous counting period.
    before: usize,
    /// Rounds of the current counting period.
    rounds: u32,
}

impl Batching {
    /// Creates a counter without clients.
    pub fn new() -> Batching {
        Batching {
            came: [0; PLACES / 64],
            size: 0,
            before: 0,
            rounds: 0,
        }
    }

    /// Records that a client waits for the next round.
    pub fn came(&mut self, client: u64) {
        // Client numbers are consecutive, so neighbors have different bits.
        let place = client as usize % PLACES;
        let (word, bit) = (place / 64, 1 << (place % 64));
        if self.came[word] & bit == 0 {
            self.came[word] |= bit;
            self.size += 1;
        }
    }

    /// Records that the read of a round is sent.
    pub fn goes(&mut self) {
        self.rounds += 1;
        if self.rounds == ROUNDS {
            *self = Batching {
                before: self.size,
                ..Batching::new()
            };
        }
    }

    /// Returns whether the group is large enough for a wait.
    pub fn is_large(&self) -> bool {
        self.enough() >= LEAST
    }

    /// Returns how many clients a read waits for: half of the recent distinct clients.
    pub fn enough(&self) -> usize {
        self.size.max(self.before) / 2
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

    fn rounds(crowd: &mut Batching, of: impl Fn(u64) -> std::ops::Range<u64>, count: u64) {
        for round in 0..count {
            of(round).for_each(|client| crowd.came(client));
            crowd.goes();
        }
    }

    #[test]
    fn repeated_clients_count_once() {
        let mut crowd = Batching::new();
        rounds(&mut crowd, |_| 0..20, 100);
        assert_eq!(crowd.enough(), 10);
    }

    #[test]
    fn distinct_clients_of_several_rounds_add_up() {
        let mut crowd = Batching::new();
        let turn = |round: u64| (round % 20) * 25..(round % 20) * 25 + 25;
        rounds(&mut crowd, turn, 64);
        // Sixteen rounds of twenty-five clients are four hundred clients.
        assert_eq!(crowd.enough(), 200);
    }

    #[test]
    fn clients_that_left_are_forgotten() {
        let mut crowd = Batching::new();
        rounds(&mut crowd, |_| 0..500, u64::from(ROUNDS));
        assert_eq!(crowd.enough(), 250);
        rounds(&mut crowd, |_| 0..4, 2 * u64::from(ROUNDS));
        assert_eq!(crowd.enough(), 2);
    }

    #[test]
    fn the_count_is_bounded_by_the_bits() {
        let mut crowd = Batching::new();
        (0..10_000).for_each(|client| crowd.came(client));
        assert_eq!(crowd.enough(), PLACES / 2);
    }
}
