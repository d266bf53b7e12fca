//! Calls that are told to a log or a collector.

use std::sync::Arc;

use super::count::SharedCount;

/// What was to be told of calls and could not be.
#[derive(Debug, Default)]
pub struct RecordMetrics {
    /// Lines of calls that were lost.
    pub lines: Arc<SharedCount>,
    /// Spans that were lost.
    pub spans: Arc<SharedCount>,
}
