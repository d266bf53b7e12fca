//! Metrics of leases.

use super::counter::Counter;

/// Heartbeats of one worker: those of its clients, and those of the upstream links that it owns.
#[derive(Debug, Default)]
pub struct LeaseMetrics {
    /// Open client streams.
    pub streams: Counter,
    /// Open upstream streams.
    pub upstream: Counter,
    /// Heartbeats received from clients.
    pub received: Counter,
    /// Heartbeats sent to etcd.
    pub sent: Counter,
    /// Client heartbeats that shared the upstream heartbeat of an earlier one.
    pub merged: Counter,
    /// Heartbeats sent to etcd again.
    pub resent: Counter,
    /// Responses for expired leases (TTL 0).
    pub expired: Counter,
    /// Heartbeats isolated because they blocked others.
    pub isolated: Counter,
}
