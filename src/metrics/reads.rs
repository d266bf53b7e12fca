//! Reads that are shared, and answers that are kept.

use std::time::Duration;

use super::counter::{Counter, Gauge, SharedCounter};
use super::histogram::Histogram;

/// Reads of one worker.
#[derive(Debug, Default)]
pub struct ReadMetrics {
    /// Linearizable reads that were answered by one that several shared.
    pub shared: Counter,
    /// Serializable reads that were answered from what is kept.
    pub hits: Counter,
    /// Those that were not, though they might have been.
    pub misses: Counter,
    /// Of them: what was kept was too old.
    pub expired: Counter,
    /// Something was written since.
    pub written: Counter,
    /// A write may have been done since.
    pub write_uncertain: Counter,
    /// The client had been shown more.
    pub connection_floor: Counter,
    /// Reads for answers that were soon to be too old.
    pub refreshes: Counter,
    /// Serializable reads that were asked again, since etcd's answer was older than what the client had
    /// been shown.
    pub stale_retried: Counter,
    /// Answers that a watch proves right.
    pub watch_backed: Counter,
    /// Ages of the answers that were given, told apart by [`AGES`].
    pub ages: Histogram<{ AGES.len() }>,
    /// Answers that were held against etcd after they were given.
    pub audits: Counter,
    /// Of them: those that differed.
    pub audit_mismatches: Counter,
}

/// The bounds of the ages that are told apart, in microseconds; what is older comes after the last.
pub const AGES: [u64; 11] = [
    1_000, 5_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

impl ReadMetrics {
    /// An answer was given that was so old.
    pub fn gave(&self, age: Duration) {
        self.hits.inc();
        self.ages.add(&AGES, age);
    }
}

/// Kept answers, of all workers.
#[derive(Debug, Default)]
pub struct AnswerMetrics {
    /// How many there are.
    pub count: Gauge,
    /// What they hold in memory, in bytes.
    pub bytes: Gauge,
    /// Times all of them were dropped.
    pub flushes: SharedCounter,
}
