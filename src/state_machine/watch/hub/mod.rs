//! The c-watchers of one worker, served from feeds.
//!
//! Told what clients ask and what feeds tell, a [`Hub`] says what to send. It never waits, and
//! what it says is taken with [`Hub::actions`] after each input. Time is what [`Hub::tick`] last
//! said.
//!
//! A *source* is a feed with a log of its last batches; a *home* is one of the identity's shared
//! trunk, a *catch-up* one of a trunk of its own. All rests on two invariants:
//!
//! - I1: a source's log holds every event of its range with `log_from` ≤ revision ≤ frontier, in
//!   order, revisions whole.
//! - I2: a c-watcher that reads from a source has a next revision ≥ the source's `log_from`.
//!
//! Delivery is then one rule: send the events from `next` through the frontier that lie in its
//! range; its next revision is then `max(next, frontier + 1)`. docs/watch.md tells the rest.

mod api;
mod catch_up;
mod deliver;
mod feed_end;
mod index;
mod join;
mod log;
mod message;
mod migrate;
mod progress;
mod remove;
mod requests;
mod slab;
mod status;
mod types;
mod verify;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

pub use api::{
    Action, CheckId, CheckResult, Create, FeedId, FeedStatus, IdentityId, Settings, Stats, StreamId,
};
pub use message::Message;

use self::index::RangeIndex;
use self::slab::{Key, Slab};
use self::types::{Counts, Group, Request, Source, Stream, Watcher};
use super::FeedEvent;
use crate::limits;
use crate::wire::response_header::Header;

/// The c-watchers of one worker.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    now: Instant,
    /// Who answered last, and the highest revision that any answer had.
    known: Header,
    actions: Vec<Action>,
    sources: Slab<Source>,
    groups: Slab<Group>,
    watchers: Slab<Watcher>,
    streams: Slab<Stream>,
    tribes: HashMap<IdentityId, IdentitySources>,
    /// How many catch-ups are open.
    catch_ups: usize,
    /// Sources that may be needed no more.
    idle: Vec<Key>,
    /// Streams whose requests may go on since what they waited for is over.
    stale: Vec<Key>,
    /// Streams with room and something to read.
    ready: VecDeque<Key>,
    /// Catch-ups that are paused or were lately, by the time they are given up.
    paused: VecDeque<(Instant, Key)>,
    /// Streams that wait for a catch-up.
    slot_waiters: VecDeque<Key>,
    /// Batches in the order they came, over all sources, by source and number.
    log_order: VecDeque<(Key, u64)>,
    log_entries: usize,
    log_bytes: usize,
    /// Progress requests to be tried again, by time.
    barriers: VecDeque<(Instant, Key)>,
    /// Progress notices of c-watchers, by time.
    notices: VecDeque<(Instant, Key)>,
    /// C-watchers that want notices.
    notices_live: usize,
    /// Homes that may be more than what is needed, by time.
    doubts: VecDeque<(Instant, Key)>,
    counts: Counts,
}

/// The sources of one identity.
#[derive(Debug)]
struct IdentitySources {
    homes: RangeIndex<Key>,
    catch_ups: Vec<Key>,
}

impl IdentitySources {
    fn new() -> IdentitySources {
        IdentitySources {
            homes: RangeIndex::new(),
            catch_ups: Vec::new(),
        }
    }
}

impl Hub {
    /// Without a client.
    pub fn new(settings: Settings, now: Instant) -> Hub {
        Hub {
            settings,
            now,
            known: Header::default(),
            actions: Vec::new(),
            sources: Slab::new(),
            groups: Slab::new(),
            watchers: Slab::new(),
            streams: Slab::new(),
            tribes: HashMap::new(),
            catch_ups: 0,
            idle: Vec::new(),
            stale: Vec::new(),
            ready: VecDeque::new(),
            paused: VecDeque::new(),
            slot_waiters: VecDeque::new(),
            log_order: VecDeque::new(),
            log_entries: 0,
            log_bytes: 0,
            barriers: VecDeque::new(),
            notices: VecDeque::new(),
            notices_live: 0,
            doubts: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What to do, in order; taken after each input or a few of them.
    pub fn actions(&mut self) -> std::vec::Drain<'_, Action> {
        self.actions.drain(..)
    }

    /// When to call [`Hub::tick`] next, at the latest. Not after now when slow c-watchers have more
    /// to read than is done at once.
    pub fn wake(&self) -> Option<Instant> {
        let queues = [&self.barriers, &self.notices, &self.doubts, &self.paused];
        let times = queues.iter().filter_map(|queue| Some(queue.front()?.0));
        let ready = (!self.ready.is_empty()).then_some(self.now);
        times.chain(ready).min()
    }

    /// It is `now`. To be called when [`Hub::wake`] says so, and before other inputs when time has
    /// passed.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.retry_barriers();
        self.notify();
        self.narrow();
        self.stop_paused();
        self.settle();
    }

    /// A client opened a watch stream that can take `room` bytes. A message is sent when there is
    /// any room, so the last may go beyond it; answers to requests are sent without.
    pub fn stream_opened(&mut self, identity: IdentityId, room: usize) -> StreamId {
        StreamId(self.streams.insert(Stream::new(identity, room)))
    }

    /// Whether the stream's requests should be read on: it has room, and not too many of them wait.
    /// Once false, [`Action::ReadRequests`] says when it is true again. What is handed in
    /// nevertheless is taken.
    pub fn takes_requests(&self, stream: StreamId) -> bool {
        self.streams.get(stream.0).is_some_and(|stream| stream.open)
    }

    /// A create request.
    pub fn create(&mut self, stream: StreamId, create: Create) {
        self.create_arrived(stream.0, create);
        self.settle();
    }

    /// A cancel request.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        self.arrived(stream.0, Request::Cancel(watch_id));
        self.settle();
    }

    /// A progress request.
    pub fn progress(&mut self, stream: StreamId) {
        self.arrived(stream.0, Request::Progress);
        self.settle();
    }

    /// The client is gone. Half-close is not that: it changes nothing.
    pub fn stream_closed(&mut self, stream: StreamId) {
        self.remove_stream(stream.0);
        self.settle();
    }

    /// The stream can take so many bytes more than was known.
    pub fn room(&mut self, stream: StreamId, bytes: usize) {
        let key = stream.0;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.room = stream.room.saturating_add_unsigned(bytes);
            stream.look_open(key, &mut self.actions);
            self.look_ready(key);
            self.settle();
        }
    }

    /// The answer to a check.
    pub fn checked(&mut self, check: CheckId, verdict: CheckResult) {
        self.check_answered(check, verdict);
        self.settle();
    }

    /// What a feed tells.
    pub fn told(&mut self, feed: FeedId, told: FeedEvent) {
        let key = feed.0;
        if self.sources.get(key).is_none() {
            return;
        }
        match told {
            FeedEvent::Live {
                from,
                through,
                header,
            } => self.live(key, from, through, header),
            FeedEvent::Events(batch) => self.events(key, batch),
            FeedEvent::Through(revision) => self.through(key, revision),
            FeedEvent::Compacted {
                compact_revision,
                header,
            } => {
                self.note(header);
                self.compacted(key, compact_revision);
            }
            FeedEvent::Refused(reason) => self.refused(key, &reason),
            FeedEvent::Lost(why) => self.lost(key, why),
        }
        self.settle();
    }

    /// The barrier asked for with [`Action::Sync`] stands at `revision`: etcd was asked after the
    /// action, and all that the feeds of the identity's shared trunk have told up to its answer,
    /// their moved frontiers included, was handed in before this.
    pub fn synced(&mut self, stream: StreamId, revision: i64) {
        self.barrier_stands(stream.0, revision);
        self.settle();
    }

    /// An answer of the cluster passed through with this header. Until one has, or a feed has told,
    /// a refusal carries an empty one.
    pub fn known(&mut self, header: Header) {
        self.note(header);
    }

    /// The store's history went back (another cluster, a restored backup), verified: it ends with
    /// this header. Every c-watcher is canceled with the revision after it as `compact_revision`,
    /// every feed closed, and what was known forgotten.
    pub fn history_reset(&mut self, header: Header) {
        self.reset(header);
        self.settle();
    }

    /// Bytes all logs together may hold from now on.
    pub fn log_limit(&mut self, bytes: usize) {
        self.settings.log_bytes = bytes;
        self.bound_log();
    }

    /// An answer of this many bytes is cut from now on for those who asked for `fragment`.
    pub fn fragment_limit(&mut self, bytes: usize) {
        self.settings.fragment_bytes = bytes;
    }

    /// Does what an input has made possible, as far as one turn goes.
    fn settle(&mut self) {
        let mut budget = limits::WATCH_EVENTS_PER_TURN;
        loop {
            self.pump(&mut budget);
            if budget == 0 || !self.use_slot() {
                break;
            }
        }
        self.bound_log();
        self.sweep();
    }

    /// Takes a header's numbers over.
    fn note(&mut self, header: Header) {
        let revision = self.known.revision.max(header.revision);
        self.known = Header { revision, ..header };
    }

    fn note_revision(&mut self, revision: i64) {
        self.known.revision = self.known.revision.max(revision);
    }
}
