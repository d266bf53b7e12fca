//! How many different clients ask the same in a loop, and whether a read waits for more of them.
//!
//! A read serves those who asked while the one before it was on its way. When a worker is busy, that is
//! one round trip, and those who are being told the last answer, or are about to ask again, miss it. So a
//! crowd's next read may wait a little: the worker has others' answers to send meanwhile. Who waits does not
//! tell a crowd of thirty from one of five hundred; who came in the last rounds does.

/// Places for clients; two with the same place count as one.
const PLACES: usize = 1024;

/// Fewer than this need not wait for each other.
const LEAST: usize = 16;

/// Rounds of which the clients are counted together.
const ROUNDS: u32 = 16;

/// Who came in the last rounds.
#[derive(Debug, Clone)]
pub struct Batching {
    came: [u64; PLACES / 64],
    /// Different places in `came`.
    size: usize,
    /// The same, of the rounds counted before.
    before: usize,
    /// In `came`, so far.
    rounds: u32,
}

impl Batching {
    /// Of nobody.
    pub fn new() -> Batching {
        Batching {
            came: [0; PLACES / 64],
            size: 0,
            before: 0,
            rounds: 0,
        }
    }

    /// A client, by a number of its own, came to wait for the next round.
    pub fn came(&mut self, client: u64) {
        // Numbers are given in order: neighbours have places of their own.
        let place = client as usize % PLACES;
        let (word, bit) = (place / 64, 1 << (place % 64));
        if self.came[word] & bit == 0 {
            self.came[word] |= bit;
            self.size += 1;
        }
    }

    /// A round goes.
    pub fn goes(&mut self) {
        self.rounds += 1;
        if self.rounds == ROUNDS {
            *self = Batching {
                before: self.size,
                ..Batching::new()
            };
        }
    }

    /// Whether it is worth a wait.
    pub fn is_large(&self) -> bool {
        self.enough() >= LEAST
    }

    /// How many should wait before a round goes: half of those who came lately.
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
    fn the_same_few_are_a_small_crowd() {
        let mut crowd = Batching::new();
        rounds(&mut crowd, |_| 0..20, 100);
        assert_eq!(crowd.enough(), 10);
    }

    #[test]
    fn different_few_are_a_large_one() {
        let mut crowd = Batching::new();
        let turn = |round: u64| (round % 20) * 25..(round % 20) * 25 + 25;
        rounds(&mut crowd, turn, 64);
        // Sixteen rounds of twenty-five are four hundred.
        assert_eq!(crowd.enough(), 200);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut crowd = Batching::new();
        rounds(&mut crowd, |_| 0..500, u64::from(ROUNDS));
        assert_eq!(crowd.enough(), 250);
        rounds(&mut crowd, |_| 0..4, 2 * u64::from(ROUNDS));
        assert_eq!(crowd.enough(), 2);
    }

    #[test]
    fn more_than_there_are_places_for_are_all_places() {
        let mut crowd = Batching::new();
        (0..10_000).for_each(|client| crowd.came(client));
        assert_eq!(crowd.enough(), PLACES / 2);
    }
}
