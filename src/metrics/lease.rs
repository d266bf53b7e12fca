//! Leases.

use super::counter::Counter;

/// Heartbeats of one worker: of its clients, and of the lines that it owns.
#[derive(Debug, Default)]
pub struct LeaseMetrics {
    /// Clients' streams now.
    pub streams: Counter,
    /// Streams to etcd now.
    pub upstream: Counter,
    /// Heartbeats from clients.
    pub received: Counter,
    /// Heartbeats to etcd.
    pub sent: Counter,
    /// Heartbeats of clients that shared one to etcd with an earlier one.
    pub merged: Counter,
    /// Heartbeats sent to etcd again.
    pub resent: Counter,
    /// Answers that a lease is no more.
    pub expired: Counter,
    /// Heartbeats that were put aside since they blocked others.
    pub isolated: Counter,
}
