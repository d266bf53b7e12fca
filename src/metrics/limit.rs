//! The bounds of `limits.rs` that are counted when somebody meets them.

/// A bound that a client met; the name is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Stream resets per second.
    Resets,
    /// Frames that carry no call, per second.
    ControlFrames,
    /// Pings more often than allowed.
    Pings,
    /// Fields in a header list.
    HeaderFields,
    /// Calls open on a worker.
    Calls,
    /// A message towards etcd.
    SendBytes,
    /// A message from etcd.
    RecvBytes,
    /// A unary request that did not arrive in time.
    SlowRequest,
    /// A unary answer that was not read in time.
    SlowReader,
    /// Bytes that wait for one connection which is not read.
    StalledBytes,
    /// Large messages of streams that are not complete.
    LargeRequests,
    /// Large answers that are not complete.
    LargeResponses,
    /// Streams that wait for changes of the proxy's health.
    HealthWatches,
}

impl Limit {
    /// Every bound with its name.
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
