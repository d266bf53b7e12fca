//! Types between a lease hub and its driver.

use std::time::Duration;

use bytes::Bytes;

use crate::wire::status::Status;

/// Id of a client stream. An id is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Worker of the stream.
    pub worker: u32,
    /// Number of the stream on that worker.
    pub stream: u64,
}

/// Id of a client connection. Each connection has a quota of isolated upstream streams (L4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Worker of the connection.
    pub worker: u32,
    /// Number of the connection on that worker.
    pub connection: u64,
}

/// Action that the driver carries out. The order of actions matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open an upstream stream for this slot and drop the previous stream of the slot.
    ///
    /// The driver retries until it succeeds, then calls [`super::Hub::connected`].
    Connect {
        /// Number of the slot. A slot has one stream at a time.
        slot: u64,
        /// Number of the stream within the slot, which grows with each stream.
        generation: u64,
        /// Reason for the stream.
        reason: ReconnectReason,
    },
    /// Close the slot and drop its stream, so that etcd does not process the heartbeats on it.
    Close {
        /// Slot of an earlier [`Action::Connect`].
        slot: u64,
    },
    /// Send a heartbeat for each of these leases, in this order.
    Send {
        /// Slot with an open stream.
        slot: u64,
        /// Leases without a heartbeat in flight. Not empty.
        leases: Vec<i64>,
    },
    /// Query the TTL of a lease, which blocks no heartbeat, then call [`super::Hub::ttl_checked`].
    CheckTtl {
        /// Lease to query.
        lease: i64,
    },
    /// Send a response to a client.
    Respond {
        /// Stream of the client.
        stream: StreamId,
        /// Response of etcd, unchanged.
        message: Bytes,
        /// Number of times to send it: the client's heartbeats that were merged into one.
        count: u32,
    },
    /// End a client stream. No further action names it.
    End {
        /// Stream to end.
        stream: StreamId,
        /// Reason, which selects the status.
        reason: ClientStreamEnd,
    },
}

/// Reason why a slot needs another stream. The driver selects endpoint and token by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectReason {
    /// No failure concerns the endpoint.
    Needed,
    /// The previous stream was lost.
    Lost,
    /// The endpoint does not answer a heartbeat that it must answer at once.
    Stalled,
    /// The endpoint does not answer a heartbeat, and the cause may be the lease.
    OtherEndpoint,
    /// etcd rejects the token of the previous stream.
    Token,
}

/// Reason why an upstream stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// The endpoint or the network failed (L3).
    Endpoint,
    /// etcd rejects the token.
    Token,
    /// etcd refuses the first unanswered heartbeat (L4).
    Refused(Status),
}

/// Result of a TTL check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlCheckResult {
    /// The lease lives for at least this time, counted from when the check was sent.
    Alive(Duration),
    /// The lease does not exist. etcd answers its heartbeat at once.
    NotFound,
    /// The lease has expired but still exists, or the check failed. Its heartbeat may block.
    Doubtful,
}

/// Reason why a client stream ends, and its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientStreamEnd {
    /// The client has half-closed it and has received all responses: OK (P4).
    Done,
    /// No response arrived within [`crate::limits::WAIT_FOR_ENDPOINT`]: UNAVAILABLE (E4).
    Unavailable,
    /// etcd refused the heartbeat: the status of etcd.
    Refused(Status),
}

/// Events since the counts were last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Heartbeats sent to etcd, including those sent again.
    pub sent: usize,
    /// Client heartbeats that share an upstream heartbeat with an earlier one.
    pub merged: usize,
    /// Heartbeats sent to etcd again.
    pub resent: usize,
    /// Responses that report an expired lease.
    pub expired: usize,
    /// Times that a lease was isolated because it blocked others.
    pub isolated: usize,
}
