//! The trunk: s-watchers kept alive at etcd over streams that come and go, told as feeds.
//!
//! What it holds to, in the words of docs/guarantees.md and docs/watch.md:
//! - A feed tells each event of its range with revision ≥ `from` exactly once, in order, revisions
//!   whole (W2, W5), and its frontier F is what [`watcher`] lets it be (W3).
//! - One s-watcher per range and kind, one stream for all of them (W1), none without a subscriber,
//!   no stream without an s-watcher (W11).
//! - A lost stream is followed by another, on which each s-watcher resumes behind F (W10).
//! - A barrier that somebody waits for is answered by a progress request sent after it (W8);
//!   [`progress`] says when one is due.
//!
//! The caller connects, picks the token and the endpoint, waits between attempts and gives up
//! (E4); it reads a stream in order, hands in one answer at a time, and carries out the actions of
//! one input before the next.

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
pub use action::{Action, ReconnectReason, Sub, Token};
use barriers::Barriers;
use progress::Progress;
use stream::{Doubt, Up};
use watcher::{Place, Watcher};

/// What a trunk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All live s-watchers of an identity, each from now on. Their progress is asked about every
    /// [`crate::limits::WATCH_PROBE`], so that a resumption finds little to catch up with.
    Shared,
    /// One s-watcher from an old revision. Its progress is asked often, so that it ends soon.
    CatchUp,
}

/// S-watchers on one stream. See the module.
#[derive(Debug)]
pub struct Trunk {
    kind: Kind,
    /// By the order of their opening.
    watchers: BTreeMap<u64, Watcher>,
    /// How many have been opened: the key of the next.
    opened: u64,
    /// Where one who wants the same from now on may join.
    by_range: HashMap<(KeyRange, bool), u64>,
    subs: HashMap<Sub, u64>,
    stream: Stream,
    /// The last that was asked for.
    generation: u64,
    barriers: Barriers,
    /// The last header of etcd's, its revision the highest of all.
    seen: Option<Header>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Stream {
    Closed,
    Connecting,
    Up(Box<Up>),
}

impl Trunk {
    /// One for the live s-watchers of an identity; it begins without any.
    pub fn shared() -> Trunk {
        Trunk::new(Kind::Shared)
    }

    /// One that tells `sub` the range from `start` on, ≥ 1.
    pub fn catch_up(sub: Sub, range: KeyRange, prev_kv: bool, start: i64) -> Trunk {
        let mut trunk = Trunk::new(Kind::CatchUp);
        trunk.add(Watcher::new(range, prev_kv, Some(start), sub));
        trunk
    }

    fn new(kind: Kind) -> Trunk {
        Trunk {
            kind,
            watchers: BTreeMap::new(),
            opened: 0,
            by_range: HashMap::new(),
            subs: HashMap::new(),
            stream: Stream::Closed,
            generation: 0,
            barriers: Barriers::default(),
            seen: None,
            actions: VecDeque::new(),
        }
    }

    /// Tells a feed, not open yet, the range from now on: a shared trunk's way in.
    pub fn open(&mut self, sub: Sub, range: KeyRange, prev_kv: bool) {
        let wanted = (range, prev_kv);
        let Some(slot) = self.by_range.get(&wanted).copied() else {
            self.by_range.insert(wanted.clone(), self.opened);
            self.add(Watcher::new(wanted.0, prev_kv, None, sub));
            return;
        };
        self.subs.insert(sub, slot);
        if let Some(watcher) = self.watchers.get_mut(&slot) {
            watcher.subs.push(sub);
            if let (true, Some(through), Some(header)) =
                (watcher.told, watcher.frontier(), self.seen)
            {
                let from = through.saturating_add(1);
                let told = FeedEvent::Live {
                    from,
                    through,
                    header,
                };
                self.actions.push_back(Action::Tell { sub, told });
            }
        }
    }

    fn add(&mut self, watcher: Watcher) {
        let slot = self.opened;
        self.opened += 1;
        self.subs
            .extend(watcher.subs.iter().map(|sub| (*sub, slot)));
        self.watchers.insert(slot, watcher);
        match &mut self.stream {
            Stream::Closed => self.connect(ReconnectReason::Needed),
            Stream::Connecting => {}
            Stream::Up(up) => {
                up.waits(slot, false);
                self.ask_for_watches();
            }
        }
    }

    /// The feed is told nothing more.
    pub fn close(&mut self, sub: Sub) {
        let Some(slot) = self.subs.remove(&sub) else {
            return;
        };
        let Some(watcher) = self.watchers.get_mut(&slot) else {
            return;
        };
        watcher.subs.retain(|each| *each != sub);
        if watcher.subs.is_empty() {
            self.remove(slot);
            self.close_if_unused();
        }
    }

    /// Asks for a barrier. While the token waits, asking again changes nothing.
    pub fn sync(&mut self, token: Token, now: Instant) {
        let sent = self.progress().map_or(0, |progress| progress.sent());
        let seen = self.seen.map_or(0, |header| header.revision);
        self.barriers.add(token, sent, self.opened, seen);
        self.tick(now);
    }

    /// Everybody who waits, waiting no longer: the trunk has come to its end.
    pub fn abandon(&mut self) -> Vec<Token> {
        self.barriers.abandon()
    }

    /// The token waits no longer.
    pub fn unsync(&mut self, token: Token) {
        self.barriers.remove(token);
    }

    /// The stream is open. `progress` says that this endpoint's answers to progress requests are
    /// sound (W8: etcd ≥ 3.4.25, ≥ 3.5.8); else none is sent, and barriers wait.
    pub fn connected(&mut self, generation: u64, progress: bool, now: Instant) {
        if generation != self.generation || !matches!(self.stream, Stream::Connecting) {
            return;
        }
        let progress = progress.then(|| match self.kind {
            Kind::Shared => Progress::seldom(now),
            Kind::CatchUp => Progress::often(now),
        });
        let mut up = Up::new(progress);
        for (slot, watcher) in &self.watchers {
            up.waits(*slot, watcher.frontier().is_some());
        }
        self.stream = Stream::Up(Box::new(up));
        self.ask_for_watches();
    }

    /// The stream has ended, could not be opened, or sent what is no answer: another is asked for.
    pub fn lost(&mut self, generation: u64) {
        if generation == self.generation && !matches!(self.stream, Stream::Closed) {
            self.connect(ReconnectReason::Lost);
        }
    }

    /// No stream can be had: every feed is told so and is over.
    pub fn give_up(&mut self, why: Unavailable) {
        self.end_all(&FeedEvent::Lost(why));
    }

    /// What [`Action::Verify`] asked: history is what it was.
    pub fn history_holds(&mut self, generation: u64) {
        let Some(up) = self.up(generation) else {
            return;
        };
        match up.doubt {
            // It is this endpoint that belongs elsewhere.
            Doubt::Foreign => self.restart(ReconnectReason::Lost),
            // It lags, and will for its stream's life show what the others have shown.
            Doubt::None | Doubt::Lags => up.doubt = Doubt::Lags,
        }
    }

    /// History went back: the store is at `header.revision` now. Every feed is told
    /// [`FeedEvent::Compacted`] one above it and is over.
    pub fn history_reset(&mut self, header: Header) {
        self.end_all(&FeedEvent::Compacted {
            compact_revision: header.revision.saturating_add(1),
            header,
        });
        self.seen = Some(header);
        self.barriers.history_is(header.revision);
    }

    /// Time has come; see [`Trunk::wake_at`].
    pub fn tick(&mut self, now: Instant) {
        if self.wake_at().is_none_or(|due| now < due) {
            return;
        }
        let generation = self.generation;
        if let Some(progress) = self.progress() {
            progress.asked(now);
            let message = request::progress();
            self.actions.push_back(Action::Send {
                generation,
                message,
            });
        }
    }

    /// When [`Trunk::tick`] is to be called, maybe at once, `None` for not at all. It changes with
    /// every input. While the caller does not read the stream it need not call.
    pub fn wake_at(&self) -> Option<Instant> {
        let Stream::Up(up) = &self.stream else {
            return None;
        };
        let progress = up.progress.as_ref()?;
        let live = self.watchers.len() > up.unlive();
        let waits = self.barriers.any_before(up.first_unlive());
        (live && up.may_ask()).then(|| progress.due(waits))
    }

    /// Whether a progress request of the stream has no answer yet. etcd may have dropped it.
    pub fn awaits_progress(&self) -> bool {
        match &self.stream {
            Stream::Up(up) => up.progress.as_ref().is_some_and(Progress::awaits),
            Stream::Closed | Stream::Connecting => false,
        }
    }

    /// The next thing to do, until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// S-watchers, opening ones included.
    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Tells the feeds of an s-watcher the last they hear.
    fn end(&mut self, slot: u64, told: &FeedEvent) {
        if let Some(watcher) = self.watchers.get(&slot) {
            watcher.tell(&mut self.actions, told);
            for sub in &watcher.subs {
                self.subs.remove(sub);
            }
        }
        self.remove(slot);
        self.close_if_unused();
    }

    fn end_all(&mut self, told: &FeedEvent) {
        for watcher in self.watchers.values() {
            watcher.tell(&mut self.actions, told);
        }
        self.watchers.clear();
        self.by_range.clear();
        self.subs.clear();
        self.close_if_unused();
    }

    /// Takes an s-watcher away, here and at etcd.
    fn remove(&mut self, slot: u64) {
        let Some(watcher) = self.watchers.remove(&slot) else {
            return;
        };
        let wanted = (watcher.range, watcher.prev_kv);
        if self.by_range.get(&wanted) == Some(&slot) {
            self.by_range.remove(&wanted);
        }
        let Stream::Up(up) = &mut self.stream else {
            return;
        };
        up.remove(slot);
        let (Place::Asked(id) | Place::Live { id, .. }) = watcher.place else {
            return;
        };
        // Also what etcd has canceled for compaction: it keeps such a watch until it is told, and
        // answers no progress request meanwhile.
        if up.forget(id) && !self.watchers.is_empty() {
            self.actions.push_back(Action::Send {
                generation: self.generation,
                message: request::cancel(id),
            });
        }
    }

    /// The stream closes with the last s-watcher (W11).
    fn close_if_unused(&mut self) {
        if self.watchers.is_empty() && !matches!(self.stream, Stream::Closed) {
            self.stream = Stream::Closed;
            let generation = self.generation;
            self.actions.push_back(Action::Disconnect { generation });
        }
    }

    /// Closes a stream that can not be used further, and asks for another.
    fn restart(&mut self, because: ReconnectReason) {
        let generation = self.generation;
        self.actions.push_back(Action::Disconnect { generation });
        self.connect(because);
    }

    fn connect(&mut self, because: ReconnectReason) {
        for watcher in self.watchers.values_mut() {
            watcher.lost();
        }
        self.barriers.new_stream();
        self.generation += 1;
        self.stream = Stream::Connecting;
        let generation = self.generation;
        self.actions.push_back(Action::Connect {
            generation,
            because,
        });
    }

    /// Sends the creates there is room for, in the order of opening.
    fn ask_for_watches(&mut self) {
        let Stream::Up(up) = &mut self.stream else {
            return;
        };
        while let Some((slot, id)) = up.next_create() {
            let Some(watcher) = self.watchers.get_mut(&slot) else {
                continue;
            };
            watcher.place = Place::Asked(id);
            let start = watcher.start_revision();
            self.actions.push_back(Action::Send {
                generation: self.generation,
                message: request::create(&watcher.range, start, watcher.prev_kv, id),
            });
        }
    }

    fn up(&mut self, generation: u64) -> Option<&mut Up> {
        match &mut self.stream {
            Stream::Up(up) if generation == self.generation => Some(up),
            _ => None,
        }
    }

    fn progress(&mut self) -> Option<&mut Progress> {
        match &mut self.stream {
            Stream::Up(up) => up.progress.as_mut(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
