//! What a hub is made of: sources, groups, c-watchers, streams.

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
use crate::wire::watch::answer::Cut;

/// A feed, its log, and the groups it serves.
///
/// I1: the log holds every event of its range with `log_from` ≤ revision ≤ `frontier`.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) identity: IdentityId,
    pub(super) range: KeyRange,
    pub(super) prev_kv: bool,
    /// Of a catch-up. None: a home, at the shared trunk.
    pub(super) start: Option<i64>,
    /// It has told `Live`.
    pub(super) live: bool,
    /// Its groups go elsewhere; nobody joins.
    pub(super) retiring: bool,
    pub(super) paused: bool,
    /// It is in the queue of those that may be more than what is needed.
    pub(super) doubted: bool,
    pub(super) log_from: i64,
    pub(super) frontier: i64,
    pub(super) log: Log,
    /// Its groups by range.
    pub(super) index: RangeIndex<Key>,
    pub(super) groups: Vec<Key>,
    pub(super) members: usize,
    /// Of them: have been sent all up to the frontier.
    pub(super) following: usize,
    /// Of them: want all of its range.
    pub(super) exact: usize,
    /// Of them: want `prev_kv`.
    pub(super) with_prev: usize,
    /// Requests that wait for it, and groups that want to move to it.
    pub(super) holds: usize,
    /// Groups that want to move to it.
    pub(super) suitors: BTreeSet<Key>,
    /// Requests that wait until it is live or over.
    pub(super) askers: Vec<CheckId>,
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
            doubted: false,
            // Of a home that is not live, nothing can be read.
            log_from: start.unwrap_or(i64::MAX),
            frontier: start.map_or(0, |start| start - 1),
            log: Log::default(),
            index: RangeIndex::new(),
            groups: Vec::new(),
            members: 0,
            following: 0,
            exact: 0,
            with_prev: 0,
            holds: 0,
            suitors: BTreeSet::new(),
            askers: Vec::new(),
        }
    }

    pub(super) fn is_home(&self) -> bool {
        self.start.is_none()
    }

    pub(super) fn serves(&self, range: &KeyRange, prev_kv: bool) -> bool {
        (self.prev_kv || !prev_kv) && self.range.covers(range) && !self.retiring
    }
}

/// The c-watchers of a source that are shown the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) source: Key,
    /// Its place among the source's groups.
    pub(super) place: usize,
    pub(super) cut: Cut,
    /// Its range is the source's.
    pub(super) exact: bool,
    pub(super) members: Vec<Key>,
    /// Where its members are to go.
    pub(super) target: Option<Key>,
    /// The events of the batch at hand that it is shown.
    pub(super) shown: Vec<u32>,
}

/// Where a c-watcher stands with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatcherState {
    /// It has been sent all up to the frontier: its next revision is `max(next, frontier + 1)`, so
    /// that nothing is written when the frontier moves.
    Following,
    /// Its stream had no room; it reads the log from `next` (I2: ≥ `log_from`, or it is adrift
    /// when its turn comes).
    Behind,
    /// The log does not reach back to `next`: it needs a catch-up.
    Adrift,
}

/// A c-watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: Key,
    pub(super) group: Key,
    pub(super) id: i64,
    /// Every event of its range below has been sent.
    pub(super) next: i64,
    /// Its place among its group's members.
    pub(super) place: u32,
    pub(super) standing: WatcherState,
    pub(super) fragment: bool,
    pub(super) notify: bool,
    /// Something was sent since the last time for a notice.
    pub(super) recent: bool,
    /// `next` is still the start revision it asked for.
    pub(super) at_start: bool,
    /// It is in its stream's queue of those behind.
    pub(super) queued: bool,
}

impl Watcher {
    /// Its next revision, with a source at this frontier.
    pub(super) fn next(&self, frontier: i64) -> i64 {
        match self.standing {
            WatcherState::Following => self.next.max(frontier + 1),
            WatcherState::Behind | WatcherState::Adrift => self.next,
        }
    }
}

/// A progress request of a stream (W8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barrier {
    /// None waits.
    None,
    /// etcd is asked. `again`: another request came meanwhile.
    Asked {
        /// Ask once more after the answer.
        again: bool,
    },
    /// The answer was of no use; ask again then.
    Pause(Instant),
}

/// A client's watch stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) identity: IdentityId,
    /// Bytes it can take; below 0 when the last message went beyond.
    pub(super) room: isize,
    /// Its requests are read on.
    pub(super) open: bool,
    pub(super) requests: VecDeque<Request>,
    /// The number of the first of them.
    pub(super) first: u64,
    pub(super) watchers: BTreeMap<i64, Key>,
    /// Ids of those that compaction canceled: taken until their client cancels them too, as at
    /// etcd.
    pub(super) compacted: BTreeSet<i64>,
    /// The least id that was never chosen.
    pub(super) next_id: i64,
    /// Bytes of its ranges' keys.
    pub(super) key_bytes: usize,
    /// The same of its requests that wait.
    pub(super) queued_bytes: usize,
    /// The highest revision it was sent in a header.
    pub(super) sent: i64,
    pub(super) barrier: Barrier,
    /// C-watchers that may be behind, in the order of their turns.
    pub(super) behind: VecDeque<Key>,
    /// C-watchers that may be adrift, to be seen to.
    pub(super) adrift: VecDeque<Key>,
    /// Those wait until one more catch-up may be opened.
    pub(super) wants_slot: bool,
    /// C-watchers that are adrift until a home is live.
    pub(super) parked: Vec<Key>,
    /// It is in the queue of those with room and something to read.
    pub(super) ready: bool,
}

/// A request whose turn has not come.
#[derive(Debug)]
pub(super) enum Request {
    Create(Box<Asked>),
    Cancel(i64),
    Progress,
}

/// A create whose turn has not come.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) create: Create,
    pub(super) range: KeyRange,
    pub(super) verdict: Option<CheckResult>,
    /// The source it waits for, held.
    pub(super) home: Option<Key>,
    /// Its start is gone with this compaction.
    pub(super) compacted: Option<i64>,
    /// etcd refused its very range.
    pub(super) refused: Option<String>,
}

impl Stream {
    pub(super) fn new(identity: IdentityId, room: usize) -> Stream {
        Stream {
            identity,
            room: isize::try_from(room).unwrap_or(isize::MAX),
            open: room > 0,
            requests: VecDeque::new(),
            first: 0,
            watchers: BTreeMap::new(),
            compacted: BTreeSet::new(),
            next_id: 0,
            key_bytes: 0,
            queued_bytes: 0,
            sent: 0,
            barrier: Barrier::None,
            behind: VecDeque::new(),
            adrift: VecDeque::new(),
            wants_slot: false,
            parked: Vec::new(),
            ready: false,
        }
    }

    /// Whether an id is taken.
    pub(super) fn has_id(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }

    /// Sends, room or not.
    pub(super) fn send(&mut self, stream: Key, message: Message, actions: &mut Vec<Action>) {
        self.room = self.room.saturating_sub_unsigned(message.len());
        self.open &= self.room > 0;
        actions.push(Action::Send {
            stream: StreamId(stream),
            message,
        });
    }

    /// Says so when its requests may be read on.
    pub(super) fn look_open(&mut self, stream: Key, actions: &mut Vec<Action>) {
        let open = self.room > 0
            && self.requests.len() < limits::WATCH_REQUESTS
            && self.queued_bytes < limits::WATCH_REQUEST_BYTES;
        if open && !self.open {
            actions.push(Action::ReadRequests(StreamId(stream)));
        }
        self.open = open;
    }

    /// The create of this number, while its turn has not come.
    pub(super) fn asked(&mut self, number: u64) -> Option<&mut Asked> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        match self.requests.get_mut(at)? {
            Request::Create(asked) => Some(asked),
            Request::Cancel(_) | Request::Progress => None,
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// C-watchers that follow, over all sources.
    pub(super) following: usize,
    /// Catch-ups that stand, those included that nobody joins any more.
    pub(super) catch_ups: usize,
    pub(super) joined: u64,
    pub(super) catch_ups_opened: u64,
    pub(super) events_sent: u64,
}

/// What a range's keys take.
pub(super) fn range_bytes(range: &KeyRange) -> usize {
    range.start().len() + range.end().map_or(0, Bytes::len)
}
