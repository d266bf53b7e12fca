//! Parts of a hub: sources, groups, client watchers and streams.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::api::{Action, CheckId, CheckResult, Create, IdentityId, StreamId};
use super::index::RangeIndex;
use super::log::Log;
use super::message::Message;
use super::slab::Key;
use crate::limits;
use crate::wire::range::KeyRange;
use crate::wire::watch::response::EventFilter;

/// A feed, its log, and the groups it serves.
///
/// I1: the log contains every event of the range with `log_from` ≤ revision ≤ `frontier`.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) identity: IdentityId,
    pub(super) range: KeyRange,
    pub(super) prev_kv: bool,
    /// Start revision of a catch-up. `None` is a home, at the shared trunk.
    pub(super) start: Option<i64>,
    /// `FeedEvent::Live` has arrived.
    pub(super) live: bool,
    /// Its groups move to other sources, and no group joins.
    pub(super) retiring: bool,
    pub(super) paused: bool,
    /// The source is in [`Hub::narrow_checks`](super::Hub).
    pub(super) narrow_check_queued: bool,
    pub(super) log_from: i64,
    pub(super) frontier: i64,
    pub(super) log: Log,
    /// Groups by range.
    pub(super) index: RangeIndex<Key>,
    pub(super) groups: Vec<Key>,
    pub(super) members: usize,
    /// Members that were sent everything up to the frontier.
    pub(super) following: usize,
    /// Members that need the whole range.
    pub(super) exact_members: usize,
    /// Members that requested `prev_kv`.
    pub(super) prev_kv_members: usize,
    /// Number of requests that wait for this source and of groups that move to it.
    pub(super) hold_count: usize,
    /// Groups that move to this source.
    pub(super) incoming_groups: BTreeSet<Key>,
    /// Creates that wait until the source is live or ends.
    pub(super) waiting_creates: Vec<CheckId>,
}

impl Source {
    pub(super) fn new(
        identity: IdentityId,
        range: KeyRange,
        prev_kv: bool,
        start: Option<i64>,
    ) -> Source {
        Source {
            identity,
            range,
            prev_kv,
            start,
            live: false,
            retiring: false,
            paused: false,
            narrow_check_queued: false,
            // Nothing can be read from a home before it is live.
            log_from: start.unwrap_or(i64::MAX),
            frontier: start.map_or(0, |start| start - 1),
            log: Log::default(),
            index: RangeIndex::new(),
            groups: Vec::new(),
            members: 0,
            following: 0,
            exact_members: 0,
            prev_kv_members: 0,
            hold_count: 0,
            incoming_groups: BTreeSet::new(),
            waiting_creates: Vec::new(),
        }
    }

    pub(super) fn is_home(&self) -> bool {
        self.start.is_none()
    }

    pub(super) fn serves(&self, range: &KeyRange, prev_kv: bool) -> bool {
        (self.prev_kv || !prev_kv) && self.range.covers(range) && !self.retiring
    }
}

/// Client watchers of a source with the same range, filters and `prev_kv`.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) source: Key,
    /// Position among the groups of the source.
    pub(super) position: usize,
    pub(super) filter: EventFilter,
    /// The range is that of the source.
    pub(super) exact: bool,
    pub(super) members: Vec<Key>,
    /// Home that the members move to.
    pub(super) target: Option<Key>,
    /// Positions of the events in the current batch that match the group.
    pub(super) matches: Vec<u32>,
}

/// State of a client watcher with respect to its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatcherState {
    /// Everything up to the frontier was sent. The next revision is `max(next, frontier + 1)`, so
    /// an advance of the frontier updates no client watcher.
    Following,
    /// The stream had no send capacity when a batch arrived. The client watcher reads the log from
    /// `next`. I2 (`next` ≥ `log_from`) is checked at its turn.
    Behind,
    /// The log does not reach back to `next`.
    NeedsCatchUp,
}

/// A client watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: Key,
    pub(super) group: Key,
    pub(super) id: i64,
    /// Every event of the range below this revision was sent.
    pub(super) next: i64,
    /// Position among the members of the group.
    pub(super) position: u32,
    pub(super) state: WatcherState,
    pub(super) fragment: bool,
    pub(super) progress_notify: bool,
    /// A message was sent since the last check for a notification.
    pub(super) sent_recently: bool,
    /// `next` is still the start revision that the client requested.
    pub(super) at_start: bool,
    /// The client watcher is in [`WatchStream::behind`].
    pub(super) queued: bool,
}

impl Watcher {
    /// Returns the next revision, for a source at this frontier.
    pub(super) fn next(&self, frontier: i64) -> i64 {
        match self.state {
            WatcherState::Following => self.next.max(frontier + 1),
            WatcherState::Behind | WatcherState::NeedsCatchUp => self.next,
        }
    }
}

/// State of the progress requests of a stream (W8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BarrierState {
    /// No progress request is pending.
    None,
    /// A barrier was requested.
    Requested {
        /// Another progress request arrived meanwhile: request a barrier again after this one.
        repeat: bool,
    },
    /// The response could not be forwarded. A barrier is requested again at this time.
    Paused(Instant),
}

/// A watch stream of a client.
#[derive(Debug)]
pub(super) struct WatchStream {
    pub(super) identity: IdentityId,
    /// Send capacity in bytes. Negative if the last message exceeded it.
    pub(super) capacity: isize,
    /// The driver reads the stream's requests.
    pub(super) accepts_requests: bool,
    pub(super) requests: VecDeque<Request>,
    /// Number of the first request in the queue.
    pub(super) first_request: u64,
    pub(super) watchers: BTreeMap<i64, Key>,
    /// Ids that compaction canceled, still in use until the client cancels them too, as at etcd.
    pub(super) compacted: BTreeSet<i64>,
    /// The lowest id that was never chosen.
    pub(super) next_id: i64,
    /// Size of the keys of its client watchers' ranges, in bytes.
    pub(super) key_bytes: usize,
    /// Size of the keys in its queued requests, in bytes.
    pub(super) queued_bytes: usize,
    /// The highest revision that was sent in a header.
    pub(super) sent_revision: i64,
    pub(super) barrier: BarrierState,
    /// Client watchers that may be behind, in the order of their turns.
    pub(super) behind: VecDeque<Key>,
    /// Client watchers that may need a catch-up, in the order of their turns.
    pub(super) needs_catch_up: VecDeque<Key>,
    /// The first of `needs_catch_up` waits for a free slot.
    pub(super) waits_for_slot: bool,
    /// Client watchers that wait until a home is live.
    pub(super) parked: Vec<Key>,
    /// The stream is in the queue of streams with send capacity and something to read.
    pub(super) ready: bool,
}

/// A request that waits for its turn.
#[derive(Debug)]
pub(super) enum Request {
    Create(Box<PendingCreate>),
    Cancel(i64),
    Progress,
}

/// A create that waits for its turn.
#[derive(Debug)]
pub(super) struct PendingCreate {
    pub(super) create: Create,
    pub(super) range: KeyRange,
    pub(super) check_result: Option<CheckResult>,
    /// The source that this create waits for and holds.
    pub(super) home: Option<Key>,
    /// The compaction that removed its start revision.
    pub(super) compacted: Option<i64>,
    /// The reason why etcd refused exactly this range.
    pub(super) refused: Option<String>,
}

impl WatchStream {
    pub(super) fn new(identity: IdentityId, capacity: usize) -> WatchStream {
        WatchStream {
            identity,
            capacity: isize::try_from(capacity).unwrap_or(isize::MAX),
            accepts_requests: capacity > 0,
            requests: VecDeque::new(),
            first_request: 0,
            watchers: BTreeMap::new(),
            compacted: BTreeSet::new(),
            next_id: 0,
            key_bytes: 0,
            queued_bytes: 0,
            sent_revision: 0,
            barrier: BarrierState::None,
            behind: VecDeque::new(),
            needs_catch_up: VecDeque::new(),
            waits_for_slot: false,
            parked: Vec::new(),
            ready: false,
        }
    }

    /// Returns whether an id is taken.
    pub(super) fn has_id(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }

    /// Sends a message, even without send capacity.
    pub(super) fn send(&mut self, stream: Key, message: Message, actions: &mut Vec<Action>) {
        self.capacity = self.capacity.saturating_sub_unsigned(message.len());
        self.accepts_requests &= self.capacity > 0;
        actions.push(Action::Send {
            stream: StreamId(stream),
            message,
        });
    }

    /// Updates `accepts_requests`, and reports when it becomes true.
    pub(super) fn update_accepting(&mut self, stream: Key, actions: &mut Vec<Action>) {
        let accepts_requests = self.capacity > 0
            && self.requests.len() < limits::WATCH_REQUESTS
            && self.queued_bytes < limits::WATCH_REQUEST_BYTES;
        if accepts_requests && !self.accepts_requests {
            actions.push(Action::ReadRequests(StreamId(stream)));
        }
        self.accepts_requests = accepts_requests;
    }

    /// Returns the queued create of this number.
    pub(super) fn pending_create(&mut self, number: u64) -> Option<&mut PendingCreate> {
        let at = usize::try_from(number.checked_sub(self.first_request)?).ok()?;
        match self.requests.get_mut(at)? {
            Request::Create(pending) => Some(pending),
            Request::Cancel(_) | Request::Progress => None,
        }
    }
}

/// Counters of a hub.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Client watchers that follow, over all sources.
    pub(super) following: usize,
    /// Open catch-ups, including retiring ones.
    pub(super) catch_ups: usize,
    pub(super) joined: u64,
    pub(super) catch_ups_opened: u64,
    pub(super) events_sent: u64,
}

/// Returns the size of the keys of a range, in bytes.
pub(super) fn range_bytes(range: &KeyRange) -> usize {
    range.start().len() + range.end().map_or(0, Bytes::len)
}
