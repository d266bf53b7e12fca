//! Metrics of one worker.

use super::calls::{CallMetrics, FailedAttempts};
use super::counter::Counter;
use super::lease::LeaseMetrics;
use super::limit::Limit;
use super::reads::ReadMetrics;
use super::traffic::Traffic;
use super::watch::WatchMetrics;

/// Metrics block of one worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Client connections accepted.
    pub accepted: Counter,
    /// Open client connections.
    pub connections: Counter,
    /// Open connections to `--metrics-addr`.
    pub admin_connections: Counter,
    /// HTTP/2 bytes of client connections, inside TLS.
    pub traffic: Traffic,
    /// Connections that ended before their first request: TLS failures, timeouts, other protocols.
    pub handshake_failures: Counter,
    /// Open calls.
    pub open_calls: Counter,
    /// Attempts of calls beyond the first attempt of each call.
    pub retries: Counter,
    /// Failed attempts.
    pub failed_attempts: FailedAttempts,
    /// Watches.
    pub watch: WatchMetrics,
    /// Leases.
    pub lease: LeaseMetrics,
    /// Reads.
    pub reads: ReadMetrics,
    /// Reads without a response in time that were also sent to another endpoint.
    pub hedged_reads: Counter,
    /// Limit hits, by [`Limit`].
    pub limits: [Counter; Limit::ALL.len()],
    /// Calls by method; the last entry counts unknown methods.
    pub calls: Box<[CallMetrics]>,
}

impl WorkerMetrics {
    /// Counts a hit of a limit.
    pub fn limit_hit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }
}
