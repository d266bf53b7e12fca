//! Bytes received and sent over connections.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::counter::Counter;

/// Bytes that one worker received and sent over its connections on one side. The connections share
/// it, and may live longer than the other metrics of their side.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<CachePadded<TrafficCounters>>);

#[derive(Debug, Default)]
struct TrafficCounters {
    received: Counter,
    sent: Counter,
}

impl Traffic {
    /// Adds received bytes. Only for the owning thread.
    pub fn add_received(&self, bytes: usize) {
        self.0.received.add(bytes);
    }

    /// Adds sent bytes. Only for the owning thread.
    pub fn add_sent(&self, bytes: usize) {
        self.0.sent.add(bytes);
    }

    /// Returns the number of received bytes.
    pub fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// Returns the number of sent bytes.
    pub fn sent(&self) -> u64 {
        self.0.sent.get()
    }
}
