//! Calls that are told to a log or a collector.

use std::sync::Arc;

use super::counter::SharedCounter;

/// What was to be told of calls and could not be.
#[derive(Debug, Default)]
pub struct CallLogMetrics {
    /// Lines of calls that were lost.
    pub lines: Arc<SharedCounter>,
    /// Spans that were lost.
    pub spans: Arc<SharedCounter>,
}
