//! Bytes that moved over connections.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::counter::Counter;

/// What one worker has moved over its connections to one side. Connections share it, and may outlive
/// whatever else is counted of their side.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<CachePadded<Moved>>);

#[derive(Debug, Default)]
struct Moved {
    received: Counter,
    sent: Counter,
}

impl Traffic {
    /// So many bytes have come. For the owning thread only.
    pub fn came(&self, bytes: usize) {
        self.0.received.add(bytes);
    }

    /// So many bytes have left. For the owning thread only.
    pub fn left(&self, bytes: usize) {
        self.0.sent.add(bytes);
    }

    /// Bytes that have come.
    pub fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// Bytes that have left.
    pub fn sent(&self) -> u64 {
        self.0.sent.get()
    }
}
