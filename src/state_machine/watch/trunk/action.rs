//! Actions of a trunk, and the ids of the receivers it delivers to.

use bytes::Bytes;

use crate::state_machine::watch::FeedEvent;
use crate::wire::response_header::Header;

/// An action for the driver. Actions are carried out in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open an upstream stream. The driver reports the result for this generation with
    /// [`Trunk::connected`] or [`Trunk::lost`], or ends all feeds with [`Trunk::fail_feeds`].
    Connect {
        /// Id of the stream. Each is greater than the one before.
        generation: u64,
        /// Reason why a stream is needed.
        reason: ReconnectReason,
    },
    /// Close this stream, or stop opening it. Later input for this generation is ignored.
    Disconnect {
        /// Id of the stream, from its `Connect`.
        generation: u64,
    },
    /// Send a complete gRPC message on the stream.
    Send {
        /// Id of the stream, which is always the open one.
        generation: u64,
        /// The message, including its gRPC prefix.
        message: Bytes,
    },
    /// Deliver an event of a feed.
    Deliver {
        /// The receiver.
        subscriber: Subscriber,
        /// The event.
        event: FeedEvent,
    },
    /// A barrier was answered: every feed that was open when it was requested is live and has
    /// received all events up to this revision (W8).
    BarrierAnswered {
        /// The client stream that waited.
        waiter: BarrierWaiter,
        /// Header revision of a response that etcd sent after the barrier was requested.
        revision: i64,
    },
    /// etcd refused the token of this stream for an upstream watcher, while others on the stream are
    /// live. The stream stays open. Find out whether a token of the identity works, and report the
    /// result with [`Trunk::token_found`] or [`Trunk::no_token_found`]. Repeat the search while
    /// [`Trunk::needs_token`] returns true.
    FindToken,
    /// History may have gone back. Read no further from this stream until a linearizable read, sent
    /// now, has shown the history. Then call [`Trunk::history_confirmed`] or
    /// [`Trunk::history_reset`].
    VerifyHistory {
        /// Id of the stream with the suspicious header.
        generation: u64,
        /// The header: from another cluster, or with a revision below `highest`.
        header: Header,
        /// The highest revision seen before.
        highest: i64,
    },
}

/// Reason why a new stream is needed. The driver chooses endpoint, token and backoff by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectReason {
    /// Nothing failed.
    Needed,
    /// The last stream was lost, could not be opened, or violated the protocol.
    Lost,
    /// etcd refuses the token that the last stream was opened with (W10).
    Token,
}

/// Receiver of a feed: a feed of the hub of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscriber {
    /// Worker of the hub.
    pub worker: u32,
    /// Feed of that hub.
    pub feed: u64,
}

/// A client stream that waits for a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BarrierWaiter {
    /// Worker of the hub.
    pub worker: u32,
    /// Client stream of that hub.
    pub stream: u64,
}
