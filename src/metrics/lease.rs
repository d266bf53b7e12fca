//! Leases.

use super::count::Count;

/// Heartbeats of one worker: of its clients, and of the lines that it owns.
#[derive(Debug, Default)]
pub struct LeaseMetrics {
    /// Clients' streams now.
    pub streams: Count,
    /// Streams to etcd now.
    pub upstream: Count,
    /// Heartbeats from clients.
    pub received: Count,
    /// Heartbeats to etcd.
    pub sent: Count,
    /// Heartbeats of clients that shared one to etcd with an earlier one.
    pub merged: Count,
    /// Heartbeats sent to etcd again.
    pub resent: Count,
    /// Answers that a lease is no more.
    pub expired: Count,
    /// Heartbeats that were put aside since they blocked others.
    pub aside: Count,
}
