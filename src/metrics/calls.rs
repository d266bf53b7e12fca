//! Clients' calls by method and code.

use std::time::Duration;

use super::counter::Counter;
use super::histogram::Histogram;

/// gRPC status codes, 0 to 16.
pub const CODES: usize = 17;

/// One method on one worker.
#[derive(Debug, Default)]
pub struct CallMetrics {
    /// Calls that arrived.
    pub started: Counter,
    /// Calls that ended, by gRPC code.
    pub handled: [Counter; CODES],
    /// Messages from clients, where a call may have several.
    pub received: Counter,
    /// Messages to clients, where a call may have several.
    pub sent: Counter,
    /// From the arrival of a unary call to its end, told apart by [`LATENCIES`].
    pub took: Histogram<{ LATENCIES.len() }>,
}

impl CallMetrics {
    /// A unary call has ended that took so long.
    pub fn took(&self, duration: Duration) {
        self.took.add(&LATENCIES, duration);
    }
}

/// The bounds of the latencies that are told apart, in microseconds: from what a read from the cache takes
/// to what only a lock or the upkeep of a store does.
pub const LATENCIES: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// What was made of attempts that failed, on one worker.
#[derive(Debug, Default)]
pub struct FailedAttempts {
    /// Sent again at once.
    pub retried: Counter,
    /// Sent again after a pause.
    pub retried_after_backoff: Counter,
    /// The client's turn.
    pub returned: Counter,
}

/// The labels of one method.
#[derive(Debug, Clone, Copy)]
pub struct MethodLabels {
    /// One message each way.
    pub unary: bool,
    /// As go-grpc names it: `unary`, `bidi_stream`, …
    pub kind: &'static str,
    /// The service with its package.
    pub service: &'static str,
    /// The method's own name.
    pub method: &'static str,
}
