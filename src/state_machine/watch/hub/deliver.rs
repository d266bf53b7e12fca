//! From feeds to c-watchers: a batch goes to the groups whose range holds its keys, encoded once
//! for each; who has no room reads it later from the log.

use std::sync::Arc;

use super::Hub;
use super::api::{Action, FeedId};
use super::log::LogEntry;
use super::message::Encoded;
use super::slab::Key;
use super::types::{Source, Stream, Watcher, WatcherState};
use crate::limits;
use crate::state_machine::watch::Batch;

/// What became of a c-watcher that read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// It may read more.
    More,
    /// It is up to the frontier, or not behind any more.
    Done,
}

impl Hub {
    /// Events of a feed.
    pub(super) fn events(&mut self, key: Key, batch: Arc<Batch>) {
        self.note(batch.header);
        self.note_revision(batch.through);
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        if !source.live || batch.through <= source.frontier {
            return;
        }
        let before = source.frontier;
        source.frontier = batch.through;
        let mut touched = Vec::new();
        for (at, event) in batch.events.iter().enumerate() {
            source.index.holding(&event.key, |group_key| {
                if let Some(group) = self.groups.get_mut(group_key)
                    && group.cut.keeps(event)
                {
                    if group.shown.is_empty() {
                        touched.push(group_key);
                    }
                    group.shown.push(at as u32);
                }
            });
        }
        let mut entry = LogEntry::new(batch);
        for group in touched {
            self.deliver(group, before, &mut entry);
        }
        self.push_log(key, entry);
        self.move_groups(key);
        self.look_paused(key);
    }

    /// The frontier moved without events.
    pub(super) fn through(&mut self, key: Key, revision: i64) {
        self.note_revision(revision);
        if let Some(source) = self.sources.get_mut(key)
            && source.live
            && revision > source.frontier
        {
            source.frontier = revision;
            self.move_groups(key);
        }
    }

    /// Sends the group's events of a batch to those who have room.
    fn deliver(&mut self, key: Key, before: i64, entry: &mut LogEntry) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let shown = std::mem::take(&mut group.shown);
        let batch = Arc::clone(&entry.batch);
        let events = shown.iter().map(|at| &batch.events[*at as usize]);
        let revisions = events.clone().map(|event| event.revision);
        let (first, last) = (revisions.clone().min(), revisions.max());
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        let mut shared: Option<Encoded> = None;
        let mut late = 0;
        for w in &group.members {
            let Some(watcher) = self.watchers.get_mut(*w) else {
                continue;
            };
            if watcher.standing != WatcherState::Following || watcher.next > last {
                continue;
            }
            let Some(stream) = self.streams.get_mut(watcher.stream) else {
                continue;
            };
            if stream.room <= 0 {
                set_next(watcher, watcher.next.max(before + 1));
                watcher.standing = WatcherState::Behind;
                queue_behind(stream, *w, watcher);
                late += 1;
                continue;
            }
            let mut own;
            let (encoded, from) = if watcher.next > first {
                own = Encoded::new(&batch, watcher.next, &group.cut);
                (&mut own, watcher.next)
            } else {
                let make = || Encoded::of(&batch, events.clone(), &group.cut);
                (shared.get_or_insert_with(make), i64::MIN)
            };
            if watcher.fragment {
                encoded.cut(&batch, from, &group.cut, self.settings.fragment_bytes);
            }
            self.counts.events_sent += encoded.events as u64;
            show(
                watcher,
                stream,
                encoded,
                batch.header.revision,
                &mut self.actions,
            );
        }
        if late > 0 {
            if let Some(source) = self.sources.get_mut(group.source) {
                source.following -= late;
                self.counts.following -= late;
            }
            // More than one will want it.
            if let Some(shared) = shared.filter(|_| late > 1) {
                entry.keep(key, shared);
            }
        }
    }

    fn push_log(&mut self, key: Key, entry: LogEntry) {
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        let before = source.log.bytes();
        self.log_order.push_back((key, source.log.next()));
        source.log.push(entry);
        self.log_entries += 1;
        self.log_bytes += source.log.bytes() - before;
        // No single range takes all.
        let share = self.settings.log_bytes / limits::WATCH_LOG_SHARE;
        while source.log.bytes() > share && source.log.len() > 1 {
            self.log_bytes -= evict(source);
            self.log_entries -= 1;
        }
        self.bound_log();
    }

    /// Drops the oldest batches beyond the bound. A catch-up keeps its last, so that it always
    /// gets its c-watchers on by one.
    pub(super) fn bound_log(&mut self) {
        let mut left = self.log_order.len();
        while self.log_bytes > self.settings.log_bytes && left > 0 {
            left -= 1;
            let Some((key, number)) = self.log_order.pop_front() else {
                return;
            };
            let Some(source) = self.sources.get_mut(key) else {
                continue;
            };
            if !source.log.starts_with(number) {
                continue;
            }
            if !source.is_home() && source.log.len() == 1 {
                self.log_order.push_back((key, number));
                continue;
            }
            self.log_bytes -= evict(source);
            self.log_entries -= 1;
        }
        // Those of sources that are gone, or that went over their share.
        if self.log_order.len() > 2 * self.log_entries + 64 {
            let sources = &self.sources;
            let stands = |(key, number): &(Key, u64)| {
                sources
                    .get(*key)
                    .is_some_and(|source| source.log.holds(*number))
            };
            self.log_order.retain(stands);
        }
    }

    /// Lets streams with room read on, as far as one turn goes.
    pub(super) fn pump(&mut self, budget: &mut usize) {
        while *budget > 0
            && let Some(key) = self.ready.pop_front()
        {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            stream.ready = false;
            self.find_places(key, budget);
            self.read_stream(key, budget);
            self.look_ready(key);
        }
    }

    /// Lets the stream's c-watchers read on in turn.
    fn read_stream(&mut self, key: Key, budget: &mut usize) {
        while *budget > 0
            && let Some(stream) = self.streams.get_mut(key)
            && stream.room > 0
            && let Some(w) = stream.behind.pop_front()
        {
            if let Some(watcher) = self.watchers.get_mut(w) {
                watcher.queued = false;
                if self.read(w, budget) == Read::More {
                    self.queue_behind(w);
                }
            }
        }
    }

    /// Sends the c-watcher the next batch of the log that shows it something.
    fn read(&mut self, w: Key, budget: &mut usize) -> Read {
        let Some(watcher) = self.watchers.get_mut(w) else {
            return Read::Done;
        };
        if watcher.standing != WatcherState::Behind {
            return Read::Done;
        }
        let Some(group) = self.groups.get(watcher.group) else {
            return Read::Done;
        };
        let (Some(source), Some(stream)) = (
            self.sources.get_mut(group.source),
            self.streams.get_mut(watcher.stream),
        ) else {
            return Read::Done;
        };
        if watcher.next < source.log_from {
            watcher.standing = WatcherState::Adrift;
            self.queue_adrift(w);
            return Read::Done;
        }
        while *budget > 0 {
            let Some(at) = source.log.from(watcher.next) else {
                set_next(watcher, watcher.next.max(source.frontier + 1));
                watcher.standing = WatcherState::Following;
                source.following += 1;
                self.counts.following += 1;
                let source = group.source;
                self.look_paused(source);
                self.move_one(w);
                return Read::Done;
            };
            let batch = Arc::clone(&source.log.entry(at).batch);
            let whole = batch
                .events
                .first()
                .is_some_and(|e| e.revision >= watcher.next);
            // Parts are made for one: a batch that large is rare.
            let limit = self.settings.fragment_bytes;
            let in_parts = watcher.fragment && batch.bytes >= limit;
            let mut own;
            let (encoded, work) = if whole && group.members.len() > 1 && !in_parts {
                let make = |batch: &Batch| Encoded::new(batch, i64::MIN, &group.cut);
                let (encoded, work, added) = source.log.encoded(at, watcher.group, make);
                self.log_bytes += added;
                (encoded, work)
            } else {
                own = Encoded::new(&batch, watcher.next, &group.cut);
                if in_parts {
                    own.cut(&batch, watcher.next, &group.cut, limit);
                }
                (&mut own, 1 + batch.events.len())
            };
            *budget = budget.saturating_sub(work);
            set_next(watcher, batch.through + 1);
            if encoded.events > 0 {
                self.counts.events_sent += encoded.events as u64;
                show(
                    watcher,
                    stream,
                    encoded,
                    batch.header.revision,
                    &mut self.actions,
                );
                break;
            }
        }
        self.move_one(w);
        Read::More
    }

    /// Puts the c-watcher among those of its stream that read on when there is room.
    pub(super) fn queue_behind(&mut self, w: Key) {
        if let Some(watcher) = self.watchers.get_mut(w)
            && watcher.standing == WatcherState::Behind
        {
            let key = watcher.stream;
            if let Some(stream) = self.streams.get_mut(key) {
                queue_behind(stream, w, watcher);
                if stream.behind.len() > 2 * stream.watchers.len() + 64 {
                    let watchers = &self.watchers;
                    stream.behind.retain(|w| watchers.get(*w).is_some());
                }
            }
            self.look_ready(key);
        }
    }

    /// Puts the stream among those that read on, if it has room and something to read.
    pub(super) fn look_ready(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.room > 0
            && !stream.ready
            && (!stream.behind.is_empty() || !(stream.adrift.is_empty() || stream.wants_slot))
        {
            stream.ready = true;
            self.ready.push_back(key);
        }
    }

    /// A catch-up that nobody can take from is not read on; one that somebody can, is.
    pub(super) fn look_paused(&mut self, key: Key) {
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        // One that is retiring is over, or about to be.
        if source.is_home() || !source.live || source.retiring {
            return;
        }
        let pause = source.following == 0 && source.members > 0;
        if source.paused && !pause && source.members > 0 {
            source.paused = false;
            self.actions.push(Action::ResumeFeed(FeedId(key)));
        } else if pause && !source.paused {
            source.paused = true;
            self.actions.push(Action::PauseFeed(FeedId(key)));
            self.paused
                .push_back((self.now + limits::CATCH_UP_IDLE_TIME, key));
        }
    }
}

/// Sends one c-watcher what its group is shown.
fn show(
    watcher: &mut Watcher,
    stream: &mut Stream,
    encoded: &Encoded,
    revision: i64,
    actions: &mut Vec<Action>,
) {
    for message in encoded.messages(watcher.id, watcher.fragment) {
        stream.send(watcher.stream, message, actions);
        stream.sent = stream.sent.max(revision);
        watcher.recent = true;
    }
}

fn set_next(watcher: &mut Watcher, next: i64) {
    watcher.at_start &= watcher.next == next;
    watcher.next = next;
}

fn queue_behind(stream: &mut Stream, w: Key, watcher: &mut Watcher) {
    if !std::mem::replace(&mut watcher.queued, true) {
        stream.behind.push_back(w);
    }
}

fn evict(source: &mut Source) -> usize {
    let Some((bytes, through)) = source.log.evict() else {
        return 0;
    };
    source.log_from = source.log_from.max(through + 1);
    bytes
}
