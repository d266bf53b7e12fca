//! Metrics of the call log.

use std::sync::Arc;

use super::counter::SharedCounter;

/// Entries of the call log that were dropped.
#[derive(Debug, Default)]
pub struct CallLogMetrics {
    /// Dropped access log lines.
    pub lines: Arc<SharedCounter>,
    /// Dropped spans.
    pub spans: Arc<SharedCounter>,
}
