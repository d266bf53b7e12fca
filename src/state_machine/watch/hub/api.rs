//! Types between a hub and its driver: ids, settings, requests, actions and status.

use std::time::Duration;

use bytes::Bytes;

use super::message::Message;
use super::slab::Key;
use crate::limits;
use crate::state_machine::watch::Unavailable;
use crate::wire::range::KeyRange;

/// Id of a client's watch stream. Ids are assigned by the hub and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(super) Key);

impl StreamId {
    /// Returns an index below the highest number of streams that were open at once.
    pub fn index(self) -> usize {
        self.0.index()
    }

    /// Returns the id as a number, for code that does not use hub types.
    pub fn number(self) -> u64 {
        self.0.number()
    }

    /// Converts a number from [`StreamId::number`] back.
    pub fn from_number(number: u64) -> StreamId {
        StreamId(Key::from_number(number))
    }
}

/// Id of a feed that the hub requested. Ids are assigned by the hub and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId(pub(super) Key);

impl FeedId {
    /// Returns the id as a number, for code that does not use hub types.
    pub fn number(self) -> u64 {
        self.0.number()
    }

    /// Converts a number from [`FeedId::number`] back.
    pub fn from_number(number: u64) -> FeedId {
        FeedId(Key::from_number(number))
    }
}

/// Id of a permission check: may the stream's own token read a range?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId {
    pub(super) stream: StreamId,
    /// Number of the create among all requests of the stream.
    pub(super) request: u64,
}

impl CheckId {
    /// Returns the stream of the create.
    pub fn stream(self) -> StreamId {
        self.stream
    }
}

/// Id of an identity, within which watches are shared (R4). The driver assigns one to each user, to
/// each token of an unknown user, and to "no credential".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(pub u64);

/// Settings of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Maximum size of all logs together, in bytes. The oldest batches above it are evicted.
    pub log_bytes: usize,
    /// Interval of the progress notifications of a client watcher (W7).
    pub progress_interval: Duration,
    /// Size in bytes from which a response is split, if its client requested `fragment`.
    pub fragment_bytes: usize,
    /// Maximum number of open catch-ups.
    pub catch_ups: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            log_bytes: limits::WATCH_LOG_BYTES,
            progress_interval: limits::WATCH_PROGRESS_INTERVAL,
            fragment_bytes: limits::WATCH_FRAGMENT_BYTES,
            catch_ups: limits::WATCH_CATCH_UPS,
        }
    }
}

/// A `WatchCreateRequest` as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// Key. An empty key means `\0`.
    pub key: Bytes,
    /// Range end, as in [`KeyRange::of`].
    pub range_end: Bytes,
    /// Start revision. 0 means from the current revision on.
    pub start_revision: i64,
    /// Watch id. 0 lets the hub choose one.
    pub watch_id: i64,
    /// Events contain the previous values.
    pub prev_kv: bool,
    /// The client wants regular progress notifications.
    pub progress_notify: bool,
    /// The client accepts large responses in fragments.
    pub fragment: bool,
    /// Filter NOPUT: no put events.
    pub no_put: bool,
    /// Filter NODELETE: no delete events.
    pub no_delete: bool,
}

/// Result of an [`Action::Check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// The token may read the range.
    Granted,
    /// The token may not read the range. The text is etcd's complete error, `rpc error: code = …
    /// desc = …`, and becomes the `cancel_reason`.
    Refused(String),
    /// No endpoint responded within the time that calls wait (E4). The stream ends.
    Lost(Unavailable),
}

/// An action for the driver. Actions of one stream or of one feed must be carried out in order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Query etcd whether the stream's own token may read the range, and report the result with
    /// [`Hub::check_result`](super::Hub::check_result).
    Check {
        /// Id of this check, for the result.
        check: CheckId,
        /// Stream with the token.
        stream: StreamId,
        /// Exactly this range. A range without a key is refused only after this check, as at etcd.
        range: KeyRange,
    },
    /// Open a feed, and report its events with [`Hub::feed_event`](super::Hub::feed_event).
    OpenFeed {
        /// Id of the feed.
        feed: FeedId,
        /// Identity of its clients.
        identity: IdentityId,
        /// Watched range.
        range: KeyRange,
        /// Events contain the previous values.
        prev_kv: bool,
        /// `None`: a feed of the identity's shared trunk, from the current revision on. A revision:
        /// a feed of a catch-up trunk of its own, with exactly `from: start` in its `Live`.
        start: Option<i64>,
    },
    /// Close a feed. Its later events are ignored.
    CloseFeed(FeedId),
    /// Stop reading a catch-up feed at etcd, because no client watcher can accept its events. Never
    /// for a feed of a shared trunk.
    PauseFeed(FeedId),
    /// Continue reading a paused feed.
    ResumeFeed(FeedId),
    /// Request a barrier from the shared trunk of the stream's identity, and report the response
    /// with [`Hub::barrier_answered`](super::Hub::barrier_answered). The barrier replaces an
    /// unanswered one of the same stream.
    RequestBarrier {
        /// Stream that waits for the barrier.
        stream: StreamId,
        /// Identity of the stream.
        identity: IdentityId,
    },
    /// Send a message to the client. Each message uses send capacity of the stream.
    Send {
        /// Receiving stream.
        stream: StreamId,
        /// The message.
        message: Message,
    },
    /// End a stream with a status. The hub has removed the stream.
    EndStream {
        /// Stream to end.
        stream: StreamId,
        /// Selects the text of the UNAVAILABLE status.
        reason: Unavailable,
    },
    /// The stream accepts requests again, after
    /// [`Hub::accepts_requests`](super::Hub::accepts_requests) was false.
    ReadRequests(StreamId),
}

/// Sizes and counters of a hub, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Watch streams of clients.
    pub streams: usize,
    /// Client watchers.
    pub watchers: usize,
    /// Feeds of shared trunks.
    pub feeds: usize,
    /// Feeds of catch-up trunks.
    pub catch_ups: usize,
    /// Client watchers that are behind or need a catch-up.
    pub slow: usize,
    /// Size of all logs, in bytes.
    pub log_bytes: usize,
    /// Total number of client watchers that started at a feed that already served others.
    pub joined: u64,
    /// Total number of opened catch-up feeds.
    pub catch_ups_opened: u64,
    /// Total number of events sent. An event sent to two client watchers counts twice.
    pub events_sent: u64,
}

/// Status of one feed, for the status page.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedStatus {
    /// Id of the feed.
    pub feed: FeedId,
    /// Identity of its clients.
    pub identity: IdentityId,
    /// Watched range.
    pub range: KeyRange,
    /// Events contain the previous values.
    pub prev_kv: bool,
    /// The feed is a catch-up.
    pub catch_up: bool,
    /// Its client watchers move to another feed, and no client watcher joins.
    pub retiring: bool,
    /// Number of its client watchers.
    pub watchers: usize,
    /// Number of its client watchers that are behind or need a catch-up.
    pub slow: usize,
    /// Frontier F. `None` until the feed is live.
    pub frontier: Option<i64>,
    /// The first revision in its log.
    pub log_from: i64,
    /// Size of its log, in bytes.
    pub log_bytes: usize,
}
