//! The words between the lease hub and its driver.

use std::time::Duration;

use bytes::Bytes;

use crate::wire::status::Status;

/// A client's stream (c-stream), named once and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// The worker it is on.
    pub worker: u32,
    /// The stream on that worker.
    pub stream: u64,
}

/// The connection of a client: who may not take all that is there for heartbeats that block (L4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// The worker it is on.
    pub worker: u32,
    /// The connection on that worker.
    pub peer: u64,
}

/// What the driver must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a stream to etcd (s-stream); answer with [`super::Hub::connected`], or try on. The lane
    /// names it with its generation, and whatever it had before is dropped.
    Connect {
        /// One of few, each with a stream at a time.
        lane: u64,
        /// Grows with each stream of the lane.
        generation: u64,
        /// What the last one ended of.
        because: ReconnectReason,
    },
    /// The lane is over: drop its stream, so that etcd works off nothing that waits on it.
    Close {
        /// As in its `Connect`.
        lane: u64,
    },
    /// Send a heartbeat for each of these leases, in this order.
    Send {
        /// One that is connected.
        lane: u64,
        /// Not empty; none of them is on its way already.
        leases: Vec<i64>,
    },
    /// Ask etcd how long a lease has, which waits for nobody; answer with [`super::Hub::examined`].
    Examine {
        /// Which.
        lease: i64,
    },
    /// Answer a client.
    Answer {
        /// Its stream.
        stream: StreamId,
        /// etcd's answer, as it was handed in.
        message: Bytes,
        /// As often as this: so many of its heartbeats were merged.
        times: u32,
    },
    /// End a client's stream; nothing more comes for it.
    End {
        /// Which.
        stream: StreamId,
        /// How.
        why: End,
    },
}

/// Why a lane needs a stream, for the choice of endpoint and token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectReason {
    /// Nothing failed that concerns the endpoint.
    Needed,
    /// The last one was lost.
    Lost,
    /// The endpoint does not answer what it should.
    Stalled,
    /// It does not answer, which may be for a reason that is none of its.
    Elsewhere,
    /// etcd refuses the token that the last one was opened with.
    Token,
}

/// How a stream to etcd ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// For a reason of the endpoint's, or of the way there (L3).
    Endpoint,
    /// etcd does not take the token.
    Token,
    /// etcd refuses the heartbeat it was at, the first unanswered one (L4).
    Refused(Status),
}

/// What etcd says of a lease that was examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Examined {
    /// It lives for this time from when it was asked.
    Lives(Duration),
    /// It is not there: a heartbeat for it is answered at once.
    Unknown,
    /// It has expired and is still there, or nobody could say: a heartbeat for it may block.
    Doubtful,
}

/// How a client's stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was half-closed, and all is answered: OK (P4).
    Done,
    /// No answer was to be had within [`crate::limits::WAIT_FOR_ENDPOINT`]: UNAVAILABLE (E4).
    Unavailable,
    /// In etcd's words.
    Refused(Status),
}

/// What happened since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Heartbeats to etcd, those sent again included.
    pub sent: usize,
    /// Heartbeats of clients that share one to etcd with an earlier one.
    pub merged: usize,
    /// Heartbeats sent to etcd again.
    pub resent: usize,
    /// Answers that said that a lease is no more.
    pub expired: usize,
    /// Heartbeats that were put aside since they blocked others.
    pub isolated: usize,
}
