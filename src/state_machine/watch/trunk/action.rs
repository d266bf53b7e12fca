//! What a trunk wants done, and the names of those whom it answers.

use bytes::Bytes;

use crate::state_machine::watch::FeedEvent;
use crate::wire::response_header::Header;

/// What the caller must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open a stream to etcd; answer with [`Trunk::connected`], [`Trunk::lost`] or
    /// [`Trunk::give_up`] of this generation.
    Connect {
        /// Names the stream from here on; each is greater than the one before.
        generation: u64,
        /// What the last one ended of.
        because: ReconnectReason,
    },
    /// Close this stream, or stop opening it. Nothing of it is heard any more.
    Disconnect {
        /// As in its `Connect`.
        generation: u64,
    },
    /// Send a whole gRPC message on the stream.
    Send {
        /// Always that of the stream that is up.
        generation: u64,
        /// The message.
        message: Bytes,
    },
    /// Tell a feed.
    Tell {
        /// Whom.
        sub: Sub,
        /// What.
        told: FeedEvent,
    },
    /// The barrier stands: every feed that was open when it was asked for is Live and has been told
    /// all events up to this revision (W8).
    Synced {
        /// Who asked.
        token: Token,
        /// Of the answer of etcd, sent after it was asked.
        revision: i64,
    },
    /// History may have gone back: read no further from this stream until a linearizable read, sent
    /// now, has told which it is; then [`Trunk::history_holds`] or [`Trunk::history_reset`].
    Verify {
        /// The stream that shows it.
        generation: u64,
        /// What it shows: another cluster, or a revision below `highest`.
        header: Header,
        /// The highest revision seen before.
        highest: i64,
    },
}

/// Why a new stream is needed, for the choice of endpoint, token and pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectReason {
    /// Nothing failed.
    Needed,
    /// The last one was lost, or could not be opened, or spoke nonsense.
    Lost,
    /// etcd refuses the token that the last one was opened with (W10).
    Token,
}

/// A feed of a hub, as far as a trunk knows it: whom to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sub {
    /// The worker of the hub.
    pub worker: u32,
    /// The feed on that worker.
    pub feed: u64,
}

/// Somebody who waits for a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The worker of the hub.
    pub worker: u32,
    /// The client's stream on that worker.
    pub stream: u64,
}
