//! What one worker counts.

use super::calls::{CallMetrics, FailedAttempts};
use super::counter::Counter;
use super::lease::LeaseMetrics;
use super::limit::Limit;
use super::reads::ReadMetrics;
use super::traffic::Traffic;
use super::watch::WatchMetrics;

/// The block of one worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Client connections accepted.
    pub accepted: Counter,
    /// Client connections open now.
    pub connections: Counter,
    /// Connections of `--metrics-addr` open now.
    pub page_connections: Counter,
    /// HTTP/2 with clients, as it is inside TLS.
    pub traffic: Traffic,
    /// Connections that ended before their first request: TLS failures, timeouts, noise.
    pub handshake_failures: Counter,
    /// Calls open now.
    pub open_calls: Counter,
    /// Attempts at a call beyond its first.
    pub retries: Counter,
    /// Attempts that failed.
    pub failed_attempts: FailedAttempts,
    /// Watches.
    pub watch: WatchMetrics,
    /// Leases.
    pub lease: LeaseMetrics,
    /// Reads.
    pub reads: ReadMetrics,
    /// Silent reads that were also sent to another endpoint.
    pub hedged_reads: Counter,
    /// By [`Limit`].
    pub limits: [Counter; Limit::ALL.len()],
    /// By method; the last is for methods that are not known.
    pub calls: Box<[CallMetrics]>,
}

impl WorkerMetrics {
    /// A client met this bound.
    pub fn hit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }
}
