//! Metrics of client calls by method and code.

use std::time::Duration;

use super::counter::Counter;
use super::histogram::Histogram;

/// Number of gRPC status codes: 0 to 16.
pub const CODE_COUNT: usize = 17;

/// Metrics of one method on one worker.
#[derive(Debug, Default)]
pub struct CallMetrics {
    /// Calls started.
    pub started: Counter,
    /// Calls ended, by gRPC code.
    pub handled: [Counter; CODE_COUNT],
    /// Messages received from clients. Not counted for unary calls.
    pub received: Counter,
    /// Messages sent to clients. Not counted for unary calls.
    pub sent: Counter,
    /// Duration of unary calls from arrival to end, with the bounds [`DURATION_BUCKETS`].
    pub duration: Histogram<{ DURATION_BUCKETS.len() }>,
}

impl CallMetrics {
    /// Records the duration of a unary call.
    pub fn observe_duration(&self, duration: Duration) {
        self.duration.observe(&DURATION_BUCKETS, duration);
    }
}

/// Bucket bounds of call durations, in microseconds: from a read served by the cache to a call that
/// waits for a lock or for maintenance of the store.
pub const DURATION_BUCKETS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Failed attempts of one worker, by outcome.
#[derive(Debug, Default)]
pub struct FailedAttempts {
    /// Retried immediately.
    pub retried: Counter,
    /// Retried after a backoff.
    pub retried_after_backoff: Counter,
    /// Error returned to the client.
    pub returned: Counter,
}

/// Labels of one method.
#[derive(Debug, Clone, Copy)]
pub struct MethodLabels {
    /// The method has one request and one response message.
    pub unary: bool,
    /// Type in the terms of go-grpc-prometheus: `unary`, `bidi_stream`, …
    pub kind: &'static str,
    /// Service name with its package.
    pub service: &'static str,
    /// Method name without the service.
    pub method: &'static str,
}
