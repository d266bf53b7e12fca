//! Clients' calls by method and code.

use super::count::Count;

/// gRPC status codes, 0 to 16.
pub const CODES: usize = 17;

/// One method on one worker.
#[derive(Debug, Default)]
pub struct CallMetrics {
    /// Calls that arrived.
    pub started: Count,
    /// Calls that ended, by gRPC code.
    pub handled: [Count; CODES],
}

/// The labels of one method.
#[derive(Debug, Clone, Copy)]
pub struct MethodLabels {
    /// As go-grpc names it: `unary`, `bidi_stream`, …
    pub kind: &'static str,
    /// The service with its package.
    pub service: &'static str,
    /// The method's own name.
    pub method: &'static str,
}
