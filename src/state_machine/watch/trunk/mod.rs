//! Trunk: the state machine that keeps the upstream watchers of one identity alive over streams
//! that are opened, lost and replaced, and delivers their events as feeds.
//!
//! Rules, from docs/reference/guarantees.md and docs/internals/watch-hub.md:
//! - A feed delivers each event of its range with revision ≥ `from` exactly once, in order, in
//!   whole revisions (W2, W5). Its frontier F is computed in [`watcher`] (W3).
//! - There is one upstream watcher per range and `prev_kv`, and one stream for all of them (W1). No
//!   upstream watcher exists without a feed, and no stream without an upstream watcher (W11).
//! - A lost stream is replaced by another one, on which each upstream watcher resumes after F
//!   (W10).
//! - A pending barrier is answered by a progress request sent after it (W8). [`progress`] decides
//!   when one is due.
//!
//! The driver connects, chooses the token and the endpoint, waits between attempts and ends the
//! feeds after the time limit (E4). The driver reads a stream in order, passes one response at a
//! time, and carries out the actions of one input before the next input.

mod action;
mod barriers;
mod progress;
mod receive;
mod stream;
mod watcher;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use super::{FeedEvent, Unavailable};
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::watch::request;
pub use action::{Action, BarrierWaiter, ReconnectReason, Subscriber};
use barriers::Barriers;
use progress::Progress;
use stream::{HistoryState, OpenStream};
use watcher::{CreateState, Watcher};

/// Purpose of a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrunkKind {
    /// All live upstream watchers of an identity, each from the current revision. Progress is
    /// requested about every [`crate::limits::WATCH_PROBE`], so that a resumed watcher has few old
    /// events to read.
    Shared,
    /// One upstream watcher from an old revision. Progress is requested often, so it ends soon.
    CatchUp,
}

/// The upstream watchers on one stream.
#[derive(Debug)]
pub struct Trunk {
    kind: TrunkKind,
    /// Upstream watchers by slot, in the order of opening.
    watchers: BTreeMap<u64, Watcher>,
    /// Number of upstream watchers ever opened: the slot of the next one.
    opened: u64,
    /// Slot by range and `prev_kv`, for feeds that join from the current revision on.
    by_range: HashMap<(KeyRange, bool), u64>,
    subscribers: HashMap<Subscriber, u64>,
    stream: StreamState,
    /// Id of the last requested stream.
    generation: u64,
    barriers: Barriers,
    /// The last header of etcd, with the highest revision of all headers.
    seen: Option<Header>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum StreamState {
    Closed,
    Connecting,
    Open(Box<OpenStream>),
}

impl Trunk {
    /// Creates a trunk for the live upstream watchers of an identity, at first without any.
    pub fn shared() -> Trunk {
        Trunk::new(TrunkKind::Shared)
    }

    /// Creates a trunk that delivers the range from revision `start` (≥ 1) on to `subscriber`.
    pub fn catch_up(subscriber: Subscriber, range: KeyRange, prev_kv: bool, start: i64) -> Trunk {
        let mut trunk = Trunk::new(TrunkKind::CatchUp);
        trunk.add(Watcher::new(range, prev_kv, Some(start), subscriber));
        trunk
    }

    fn new(kind: TrunkKind) -> Trunk {
        Trunk {
            kind,
            watchers: BTreeMap::new(),
            opened: 0,
            by_range: HashMap::new(),
            subscribers: HashMap::new(),
            stream: StreamState::Closed,
            generation: 0,
            barriers: Barriers::default(),
            seen: None,
            actions: VecDeque::new(),
        }
    }

    /// Opens a feed at the current revision. The subscriber must have no open feed here. For shared
    /// trunks.
    pub fn open(&mut self, subscriber: Subscriber, range: KeyRange, prev_kv: bool) {
        let key = (range, prev_kv);
        let Some(slot) = self.by_range.get(&key).copied() else {
            self.by_range.insert(key.clone(), self.opened);
            self.add(Watcher::new(key.0, prev_kv, None, subscriber));
            return;
        };
        self.subscribers.insert(subscriber, slot);
        if let Some(watcher) = self.watchers.get_mut(&slot) {
            watcher.subscribers.push(subscriber);
            if let (true, Some(frontier), Some(header)) =
                (watcher.live_sent, watcher.frontier(), self.seen)
            {
                let from = frontier.saturating_add(1);
                let event = FeedEvent::Live {
                    from,
                    frontier,
                    header,
                };
                self.actions
                    .push_back(Action::Deliver { subscriber, event });
            }
        }
    }

    fn add(&mut self, watcher: Watcher) {
        let slot = self.opened;
        self.opened += 1;
        self.subscribers.extend(
            watcher
                .subscribers
                .iter()
                .map(|subscriber| (*subscriber, slot)),
        );
        self.watchers.insert(slot, watcher);
        match &mut self.stream {
            StreamState::Closed => self.connect(ReconnectReason::Needed),
            StreamState::Connecting => {}
            StreamState::Open(open) => {
                open.add_waiting(slot, false);
                self.send_creates();
            }
        }
    }

    /// Closes a feed. A closed feed receives no further events.
    pub fn close(&mut self, subscriber: Subscriber) {
        let Some(slot) = self.subscribers.remove(&subscriber) else {
            return;
        };
        let Some(watcher) = self.watchers.get_mut(&slot) else {
            return;
        };
        watcher.subscribers.retain(|each| *each != subscriber);
        if watcher.subscribers.is_empty() {
            self.remove(slot);
            self.close_if_unused();
        }
    }

    /// Requests a barrier. Does nothing if the waiter already waits for one.
    pub fn request_barrier(&mut self, waiter: BarrierWaiter, now: Instant) {
        let sent = self.progress().map_or(0, |progress| progress.sent());
        let seen = self.seen.map_or(0, |header| header.revision);
        self.barriers.add(waiter, sent, self.opened, seen);
        self.tick(now);
    }

    /// Removes all barriers and returns their waiters, when the trunk ends.
    pub fn take_barrier_waiters(&mut self) -> Vec<BarrierWaiter> {
        self.barriers.take_all()
    }

    /// Removes the barrier of a waiter.
    pub fn cancel_barrier(&mut self, waiter: BarrierWaiter) {
        self.barriers.remove(waiter);
    }

    /// Reports that the stream is open. `sound_progress` states that responses of this endpoint to
    /// progress requests are correct (W8: etcd ≥ 3.4.25, ≥ 3.5.8). If false, no progress request is
    /// sent, and barriers wait.
    pub fn connected(&mut self, generation: u64, sound_progress: bool, now: Instant) {
        if generation != self.generation || !matches!(self.stream, StreamState::Connecting) {
            return;
        }
        let progress = sound_progress.then(|| match self.kind {
            TrunkKind::Shared => Progress::for_shared(now),
            TrunkKind::CatchUp => Progress::for_catch_up(now),
        });
        let mut open = OpenStream::new(progress);
        for (slot, watcher) in &self.watchers {
            open.add_waiting(*slot, watcher.frontier().is_some());
        }
        self.stream = StreamState::Open(Box::new(open));
        self.send_creates();
    }

    /// Reports that the stream has ended, could not be opened, or sent an invalid message. The
    /// trunk requests another stream.
    pub fn lost(&mut self, generation: u64) {
        if generation == self.generation && !matches!(self.stream, StreamState::Closed) {
            self.connect(ReconnectReason::Lost);
        }
    }

    /// Ends every feed with [`FeedEvent::Lost`], because no stream can be opened. Where etcd refused
    /// the token for a watch that was never live, its reason is delivered before.
    pub fn fail_feeds(&mut self, reason: Unavailable) {
        for watcher in self.watchers.values().filter(|w| !w.live_sent) {
            if let Some(refusal) = watcher.token_refusal.clone() {
                watcher.deliver(&mut self.actions, &FeedEvent::TokenRefused(refusal));
            }
        }
        self.end_all(&FeedEvent::Lost(reason));
    }

    /// Reports that a token of the identity works, after [`Action::FindToken`]. The trunk requests
    /// a stream with another token, on which all upstream watchers resume.
    pub fn token_found(&mut self) {
        if self.needs_token() {
            self.restart(ReconnectReason::Token);
        }
    }

    /// Reports that no token of the identity works now. A watch that was live before ends, because
    /// its events can no longer be read (W10). A new watch is refused, and the live ones go on.
    pub fn no_token_found(&mut self) {
        let mut lost = Vec::new();
        for (slot, watcher) in &self.watchers {
            if watcher.create_state != CreateState::TokenRefused {
                continue;
            }
            match watcher.token_refusal.clone() {
                Some(reason) if watcher.is_set_aside() => {
                    watcher.deliver(&mut self.actions, &FeedEvent::TokenRefused(reason));
                }
                _ => lost.push(*slot),
            }
        }
        for slot in lost {
            self.end(slot, &FeedEvent::Lost(Unavailable::Unavailable));
        }
    }

    /// Returns whether etcd refused the token of the open stream for an upstream watcher.
    pub fn needs_token(&self) -> bool {
        let mut watchers = self.watchers.values();
        watchers.any(|w| w.create_state == CreateState::TokenRefused)
    }

    /// Reports the result of [`Action::VerifyHistory`]: history did not go back.
    pub fn history_confirmed(&mut self, generation: u64) {
        let Some(open) = self.open_stream(generation) else {
            return;
        };
        match open.history {
            // This endpoint belongs to another cluster.
            HistoryState::OtherCluster => self.restart(ReconnectReason::Lost),
            // The member is behind. Its lower revisions are expected while this stream lasts.
            HistoryState::Consistent | HistoryState::Behind => open.history = HistoryState::Behind,
        }
    }

    /// Reports that history went back and the store is at `header.revision`. Every feed ends with
    /// [`FeedEvent::Compacted`] one revision above it.
    pub fn history_reset(&mut self, header: Header) {
        self.end_all(&FeedEvent::Compacted {
            compact_revision: header.revision.saturating_add(1),
            header,
        });
        self.seen = Some(header);
        self.barriers.limit_floors(header.revision);
    }

    /// Advances the time. To be called at [`Trunk::wake_at`].
    pub fn tick(&mut self, now: Instant) {
        if self.wake_at().is_none_or(|due| now < due) {
            return;
        }
        let generation = self.generation;
        if let Some(progress) = self.progress() {
            progress.request_sent(now);
            let message = request::progress();
            self.actions.push_back(Action::Send {
                generation,
                message,
            });
        }
    }

    /// Returns when to call [`Trunk::tick`]; `None` means never. The time may be in the past, and
    /// changes with every input. The driver need not call while it does not read the stream.
    pub fn wake_at(&self) -> Option<Instant> {
        let StreamState::Open(open) = &self.stream else {
            return None;
        };
        let progress = open.progress.as_ref()?;
        let live = self.watchers.len() > open.not_live();
        let has_waiters = self.barriers.can_answer_any(open.first_not_live());
        (live && open.may_request_progress()).then(|| progress.due(has_waiters))
    }

    /// Returns whether a progress request of the stream is unanswered. etcd may have dropped it.
    pub fn awaits_progress(&self) -> bool {
        match &self.stream {
            StreamState::Open(open) => open.progress.as_ref().is_some_and(Progress::has_unanswered),
            StreamState::Closed | StreamState::Connecting => false,
        }
    }

    /// Returns the next action to carry out.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the number of upstream watchers, including those that are not created yet.
    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Ends an upstream watcher and delivers the last event to its feeds.
    fn end(&mut self, slot: u64, event: &FeedEvent) {
        if let Some(watcher) = self.watchers.get(&slot) {
            watcher.deliver(&mut self.actions, event);
            for subscriber in &watcher.subscribers {
                self.subscribers.remove(subscriber);
            }
        }
        self.remove(slot);
        self.close_if_unused();
    }

    fn end_all(&mut self, event: &FeedEvent) {
        for watcher in self.watchers.values() {
            watcher.deliver(&mut self.actions, event);
        }
        self.watchers.clear();
        self.by_range.clear();
        self.subscribers.clear();
        self.close_if_unused();
    }

    /// Removes an upstream watcher here and at etcd.
    fn remove(&mut self, slot: u64) {
        let Some(watcher) = self.watchers.remove(&slot) else {
            return;
        };
        let key = (watcher.range, watcher.prev_kv);
        if self.by_range.get(&key) == Some(&slot) {
            self.by_range.remove(&key);
        }
        let StreamState::Open(open) = &mut self.stream else {
            return;
        };
        open.remove(slot);
        let (CreateState::Requested(id) | CreateState::Live { id, .. }) = watcher.create_state
        else {
            return;
        };
        // Also for a watch that etcd canceled for compaction. At etcd that watch exists until a
        // client cancels it, and etcd answers no progress request meanwhile.
        if open.remove_id(id) && !self.watchers.is_empty() {
            self.actions.push_back(Action::Send {
                generation: self.generation,
                message: request::cancel(id),
            });
        }
    }

    /// Closes the stream if no upstream watcher is left (W11).
    fn close_if_unused(&mut self) {
        if self.watchers.is_empty() && !matches!(self.stream, StreamState::Closed) {
            self.stream = StreamState::Closed;
            let generation = self.generation;
            self.actions.push_back(Action::Disconnect { generation });
        }
    }

    /// Closes an unusable stream and requests another one.
    fn restart(&mut self, reason: ReconnectReason) {
        let generation = self.generation;
        self.actions.push_back(Action::Disconnect { generation });
        self.connect(reason);
    }

    fn connect(&mut self, reason: ReconnectReason) {
        for watcher in self.watchers.values_mut() {
            watcher.stream_lost();
            if reason != ReconnectReason::Token {
                watcher.token_refusal = None;
            }
        }
        self.barriers.reset_requests();
        self.generation += 1;
        self.stream = StreamState::Connecting;
        let generation = self.generation;
        self.actions
            .push_back(Action::Connect { generation, reason });
    }

    /// Sends as many creates as the limit of unanswered ones allows, in the order of opening.
    fn send_creates(&mut self) {
        let StreamState::Open(open) = &mut self.stream else {
            return;
        };
        while let Some((slot, id)) = open.next_create() {
            let Some(watcher) = self.watchers.get_mut(&slot) else {
                continue;
            };
            watcher.create_state = CreateState::Requested(id);
            let start = watcher.start_revision();
            self.actions.push_back(Action::Send {
                generation: self.generation,
                message: request::create(&watcher.range, start, watcher.prev_kv, id),
            });
        }
    }

    fn open_stream(&mut self, generation: u64) -> Option<&mut OpenStream> {
        match &mut self.stream {
            StreamState::Open(open) if generation == self.generation => Some(open),
            _ => None,
        }
    }

    fn progress(&mut self) -> Option<&mut Progress> {
        match &mut self.stream {
            StreamState::Open(open) => open.progress.as_mut(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
