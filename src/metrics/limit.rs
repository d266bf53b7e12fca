//! Limits of `limits.rs` with counted hits.

/// Limit that a client exceeded. Exported as a label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Stream resets per second.
    Resets,
    /// Frames per second that belong to no call.
    ControlFrames,
    /// Rate of pings.
    Pings,
    /// Fields of a header list.
    HeaderFields,
    /// Open calls of a worker.
    Calls,
    /// Bytes of a message to etcd.
    SendBytes,
    /// Bytes of a message from etcd.
    RecvBytes,
    /// Time until a unary request is complete.
    SlowRequest,
    /// Time until the client has read a unary response.
    SlowReader,
    /// Bytes buffered for one connection that is not read.
    StalledBytes,
    /// Incomplete large request messages.
    LargeRequests,
    /// Incomplete large response messages.
    LargeResponses,
    /// Streams that watch the health of the proxy.
    HealthWatches,
}

impl Limit {
    /// Every limit with its label value.
    pub const ALL: [(Limit, &'static str); 13] = [
        (Limit::Resets, "resets"),
        (Limit::ControlFrames, "control_frames"),
        (Limit::Pings, "pings"),
        (Limit::HeaderFields, "header_fields"),
        (Limit::Calls, "calls"),
        (Limit::SendBytes, "send_bytes"),
        (Limit::RecvBytes, "recv_bytes"),
        (Limit::SlowRequest, "slow_request"),
        (Limit::SlowReader, "slow_reader"),
        (Limit::StalledBytes, "stalled_bytes"),
        (Limit::LargeRequests, "large_requests"),
        (Limit::LargeResponses, "large_responses"),
        (Limit::HealthWatches, "health_watches"),
    ];
}
