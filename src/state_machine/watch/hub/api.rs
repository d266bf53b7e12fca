//! What a hub is told and what it asks for: the words between it and its driver.

use std::time::Duration;

use bytes::Bytes;

use super::message::Message;
use super::slab::Key;
use crate::limits;
use crate::state_machine::watch::Unavailable;
use crate::wire::range::KeyRange;

/// A client's watch stream; named by the hub, never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(super) Key);

impl StreamId {
    /// Its place in a row as long as the most streams there were at once.
    pub fn index(self) -> usize {
        self.0.index()
    }

    /// It as a number, for those who know no hub.
    pub fn number(self) -> u64 {
        self.0.number()
    }

    /// The stream of that number.
    pub fn from_number(number: u64) -> StreamId {
        StreamId(Key::from_number(number))
    }
}

/// A feed the hub asked for; named by the hub, never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId(pub(super) Key);

impl FeedId {
    /// It as a number, for those who know no hub.
    pub fn number(self) -> u64 {
        self.0.number()
    }

    /// The feed of that number.
    pub fn from_number(number: u64) -> FeedId {
        FeedId(Key::from_number(number))
    }
}

/// A question whether a stream's own token may read a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId {
    pub(super) stream: StreamId,
    /// The place of its request among all of the stream.
    pub(super) request: u64,
}

impl CheckId {
    /// Whose request it is about.
    pub fn stream(self) -> StreamId {
        self.stream
    }
}

/// Who shares (R4): the driver's number for a user, a token without a known user, or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(pub u64);

/// What a hub is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes all logs together may hold; more is dropped from the oldest end.
    pub log_bytes: usize,
    /// Time between two progress notices of one c-watcher (W7).
    pub progress_interval: Duration,
    /// An answer of this many bytes is cut for those who asked for `fragment`.
    pub fragment_bytes: usize,
    /// Catch-up feeds open at once.
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

/// A `WatchCreateRequest`, as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// Empty stands for `\0`.
    pub key: Bytes,
    /// See [`KeyRange::of`].
    pub range_end: Bytes,
    /// 0 is from now on.
    pub start_revision: i64,
    /// 0 is for one of the hub's choice.
    pub watch_id: i64,
    /// With the values before.
    pub prev_kv: bool,
    /// Tell from time to time that nothing happened.
    pub progress_notify: bool,
    /// Large answers in parts.
    pub fragment: bool,
    /// Filter NOPUT.
    pub no_put: bool,
    /// Filter NODELETE.
    pub no_delete: bool,
}

/// The answer to a [`Action::Check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// The token may read the range.
    Granted,
    /// It may not. etcd's words in full, `rpc error: code = … desc = …`: they become the
    /// `cancel_reason`.
    Refused(String),
    /// Nobody could be asked within the time that calls wait: the stream ends.
    Lost(Unavailable),
}

/// What the driver is to do. In order; what concerns one stream or one feed must stay in order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Ask etcd whether the stream's own token may read the range, and answer with
    /// [`Hub::checked`](super::Hub::checked).
    Check {
        /// To answer with.
        check: CheckId,
        /// Whose token.
        stream: StreamId,
        /// Exactly this range; one without a key is refused after this check only, as by etcd.
        range: KeyRange,
    },
    /// Subscribe; tell what it says with [`Hub::told`](super::Hub::told).
    OpenFeed {
        /// Its name.
        feed: FeedId,
        /// For whom.
        identity: IdentityId,
        /// Of what.
        range: KeyRange,
        /// With the values before.
        prev_kv: bool,
        /// `None`: at the identity's shared trunk, from now on. A revision: at a catch-up trunk of
        /// its own, whose `Live` says exactly `from: start`.
        start: Option<i64>,
    },
    /// Unsubscribe. What is still told under this name is ignored.
    CloseFeed(FeedId),
    /// Nobody can take what a catch-up feed tells: do not read on at etcd. Never for a shared one.
    PauseFeed(FeedId),
    /// Read on.
    ResumeFeed(FeedId),
    /// Ask the shared trunk of the stream's identity for a progress barrier; answer with
    /// [`Hub::synced`](super::Hub::synced). An earlier one of the same stream, if it
    /// is not answered, is void.
    Sync {
        /// Whose barrier.
        stream: StreamId,
        /// As the stream was opened.
        identity: IdentityId,
    },
    /// Send to the client. Counted against the stream's room.
    Send {
        /// Where.
        stream: StreamId,
        /// What.
        message: Message,
    },
    /// The stream is over and forgotten: tell its client the status.
    End {
        /// Which.
        stream: StreamId,
        /// UNAVAILABLE, and in which words.
        why: Unavailable,
    },
    /// The stream's requests may be read again: see
    /// [`Hub::takes_requests`](super::Hub::takes_requests).
    ReadRequests(StreamId),
}

/// Sizes of a hub, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Watch streams of clients.
    pub streams: usize,
    /// c-watchers.
    pub watchers: usize,
    /// Feeds of shared trunks.
    pub feeds: usize,
    /// Feeds of catch-up trunks.
    pub catch_ups: usize,
    /// c-watchers that have not been sent all that is here, or for which it is not here yet.
    pub slow: usize,
    /// Bytes of all logs.
    pub log_bytes: usize,
    /// c-watchers that began at a feed which served others, ever.
    pub joined: u64,
    /// Catch-up feeds opened, ever.
    pub catch_ups_opened: u64,
    /// Events sent, ever: one for two c-watchers counts twice.
    pub events_sent: u64,
}

/// One feed, for the status page.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedStatus {
    /// Its name.
    pub feed: FeedId,
    /// For whom.
    pub identity: IdentityId,
    /// Of what.
    pub range: KeyRange,
    /// With the values before.
    pub prev_kv: bool,
    /// Of a catch-up trunk.
    pub catch_up: bool,
    /// Its c-watchers go to another, and nobody joins.
    pub retiring: bool,
    /// c-watchers it serves.
    pub watchers: usize,
    /// Of them: have not been sent all that is here.
    pub slow: usize,
    /// F; `None` until it is live.
    pub frontier: Option<i64>,
    /// The first revision its log holds.
    pub log_from: i64,
    /// Bytes of its log.
    pub log_bytes: usize,
}
