//! Watch hub: the state machine that serves the client watchers of one worker from feeds.
//!
//! Inputs are method calls of [`Hub`]: requests of clients, events of feeds, and the time
//! ([`Hub::tick`]). Outputs are actions, taken with [`Hub::actions`] after each input. A hub never
//! waits and does no IO.
//!
//! A *source* is a feed with a log of its last batches. A *home* is a source at the shared trunk of
//! the identity. A *catch-up* is a source at a trunk of its own. Two invariants hold:
//!
//! - I1: the log of a source contains every event of its range with `log_from` ≤ revision ≤
//!   frontier, in order and in whole revisions.
//! - I2: a client watcher that reads from a source has a next revision ≥ the source's `log_from`.
//!
//! Delivery therefore needs one rule. A client watcher is sent the events of its range from `next`
//! up to the frontier, and its next revision becomes `max(next, frontier + 1)`.
//! docs/internals/watch-hub.md describes the rest.

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
use self::types::{Counts, Group, Request, Source, WatchStream, Watcher};
use super::FeedEvent;
use crate::limits;
use crate::wire::response_header::Header;

/// The client watchers of one worker, and the sources that serve them.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    now: Instant,
    /// The last header seen, with the highest revision of all headers and feeds.
    known: Header,
    actions: Vec<Action>,
    sources: Slab<Source>,
    groups: Slab<Group>,
    watchers: Slab<Watcher>,
    streams: Slab<WatchStream>,
    by_identity: HashMap<IdentityId, IdentitySources>,
    /// Number of catch-ups that are not retiring.
    catch_ups: usize,
    /// Sources that may be unused.
    maybe_unused: Vec<Key>,
    /// Streams with requests that may continue, because their wait is over.
    unblocked_streams: Vec<Key>,
    /// Streams with send capacity and something to read.
    ready: VecDeque<Key>,
    /// Catch-ups that are paused or were paused recently, by the time they are closed.
    paused: VecDeque<(Instant, Key)>,
    /// Streams that wait for a catch-up slot.
    slot_waiters: VecDeque<Key>,
    /// Batches of all sources in order of arrival, by source and number.
    log_order: VecDeque<(Key, u64)>,
    log_entries: usize,
    log_bytes: usize,
    /// Streams that request a barrier again, by time.
    barriers: VecDeque<(Instant, Key)>,
    /// Client watchers with progress notifications, by the time of the next one.
    notifications: VecDeque<(Instant, Key)>,
    /// Number of client watchers that requested progress notifications.
    notification_watchers: usize,
    /// Homes that may be oversized, by the time of their check.
    narrow_checks: VecDeque<(Instant, Key)>,
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
    /// Creates a hub without streams.
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
            by_identity: HashMap::new(),
            catch_ups: 0,
            maybe_unused: Vec::new(),
            unblocked_streams: Vec::new(),
            ready: VecDeque::new(),
            paused: VecDeque::new(),
            slot_waiters: VecDeque::new(),
            log_order: VecDeque::new(),
            log_entries: 0,
            log_bytes: 0,
            barriers: VecDeque::new(),
            notifications: VecDeque::new(),
            notification_watchers: 0,
            narrow_checks: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Returns the actions to carry out, in order. To be called after one or several inputs.
    pub fn actions(&mut self) -> std::vec::Drain<'_, Action> {
        self.actions.drain(..)
    }

    /// Returns the latest time of the next [`Hub::tick`]. The time is not after now if slow client
    /// watchers have more to read than one turn processes.
    pub fn wake_at(&self) -> Option<Instant> {
        let queues = [
            &self.barriers,
            &self.notifications,
            &self.narrow_checks,
            &self.paused,
        ];
        let times = queues.iter().filter_map(|queue| Some(queue.front()?.0));
        let ready = (!self.ready.is_empty()).then_some(self.now);
        times.chain(ready).min()
    }

    /// Advances the time. To be called at [`Hub::wake_at`], and before another input if time has
    /// passed.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.retry_barriers();
        self.send_notifications();
        self.narrow();
        self.close_idle_catch_ups();
        self.settle();
    }

    /// Adds a client's watch stream with a send capacity in bytes. A message is sent while there is
    /// any capacity, so the last message may exceed it. Responses to requests need no capacity.
    pub fn stream_opened(&mut self, identity: IdentityId, capacity: usize) -> StreamId {
        StreamId(self.streams.insert(WatchStream::new(identity, capacity)))
    }

    /// Returns whether the driver should read the stream's requests: it has send capacity, and the
    /// queue of requests is below its limits. After false, [`Action::ReadRequests`] reports when it
    /// is true again. Requests that arrive nevertheless are accepted.
    pub fn accepts_requests(&self, stream: StreamId) -> bool {
        self.streams
            .get(stream.0)
            .is_some_and(|stream| stream.accepts_requests)
    }

    /// Processes a create request.
    pub fn create(&mut self, stream: StreamId, create: Create) {
        self.queue_create(stream.0, create);
        self.settle();
    }

    /// Processes a cancel request.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        self.queue_request(stream.0, Request::Cancel(watch_id));
        self.settle();
    }

    /// Processes a progress request.
    pub fn progress(&mut self, stream: StreamId) {
        self.queue_request(stream.0, Request::Progress);
        self.settle();
    }

    /// Removes the stream of a client that disconnected. A half-close is not reported here and
    /// changes nothing (P4).
    pub fn stream_closed(&mut self, stream: StreamId) {
        self.remove_stream(stream.0);
        self.settle();
    }

    /// Adds send capacity to a stream, in bytes.
    pub fn add_capacity(&mut self, stream: StreamId, bytes: usize) {
        let key = stream.0;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.capacity = stream.capacity.saturating_add_unsigned(bytes);
            stream.update_accepting(key, &mut self.actions);
            self.queue_if_ready(key);
            self.settle();
        }
    }

    /// Processes the result of an [`Action::Check`].
    pub fn check_result(&mut self, check: CheckId, result: CheckResult) {
        self.apply_check_result(check, result);
        self.settle();
    }

    /// Processes an event of a feed. Events of a closed feed are ignored.
    pub fn feed_event(&mut self, feed: FeedId, event: FeedEvent) {
        let key = feed.0;
        if self.sources.get(key).is_none() {
            return;
        }
        match event {
            FeedEvent::Live {
                from,
                frontier,
                header,
            } => self.feed_live(key, from, frontier, header),
            FeedEvent::Events(batch) => self.feed_events(key, batch),
            FeedEvent::Frontier(revision) => self.feed_frontier(key, revision),
            FeedEvent::Compacted {
                compact_revision,
                header,
            } => {
                self.update_known(header);
                self.feed_compacted(key, compact_revision);
            }
            FeedEvent::Refused(reason) => self.feed_refused(key, &reason),
            FeedEvent::TokenRefused(reason) => self.feed_token_refused(key, &reason),
            FeedEvent::Lost(reason) => self.feed_lost(key, reason),
        }
        self.settle();
    }

    /// Processes the response to [`Action::RequestBarrier`] at `revision`. etcd received the
    /// request after the action. All events and frontier advances of the feeds of the identity's
    /// shared trunk up to the response were passed to the hub before this call (W8).
    pub fn barrier_answered(&mut self, stream: StreamId, revision: i64) {
        self.barrier_response(stream.0, revision);
        self.settle();
    }

    /// Records the header of a response of the cluster. Until a header or a feed event arrives, the
    /// header of a refusal is empty.
    pub fn observe_header(&mut self, header: Header) {
        self.update_known(header);
    }

    /// Processes a verified history reset (another cluster, a restored backup). `header` contains
    /// the current revision of the store. Every client watcher is canceled with the following
    /// revision as `compact_revision`, every feed is closed, and the known revision is replaced.
    pub fn history_reset(&mut self, header: Header) {
        self.reset_history(header);
        self.settle();
    }

    /// Sets the maximum size of all logs together, in bytes.
    pub fn set_log_limit(&mut self, bytes: usize) {
        self.settings.log_bytes = bytes;
        self.bound_log();
    }

    /// Sets the size in bytes from which a response is split, if its client requested `fragment`.
    pub fn set_fragment_limit(&mut self, bytes: usize) {
        self.settings.fragment_bytes = bytes;
    }

    /// Continues the work that an input made possible, up to the event limit of one turn.
    fn settle(&mut self) {
        let mut budget = limits::WATCH_EVENTS_PER_TURN;
        loop {
            self.pump(&mut budget);
            if budget == 0 || !self.assign_free_slot() {
                break;
            }
        }
        self.bound_log();
        self.close_unused_feeds();
    }

    /// Adopts a header. The known revision never decreases.
    fn update_known(&mut self, header: Header) {
        let revision = self.known.revision.max(header.revision);
        self.known = Header { revision, ..header };
    }

    fn update_known_revision(&mut self, revision: i64) {
        self.known.revision = self.known.revision.max(revision);
    }
}
