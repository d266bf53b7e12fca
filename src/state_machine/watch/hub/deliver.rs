//! Delivery of feeds to client watchers.
//!
//! Each event of a batch is matched to the groups with a range that contains its key. The events of
//! a group are encoded once. A client watcher without send capacity reads the batch later from the
//! log.

use std::sync::Arc;

use super::Hub;
use super::api::{Action, FeedId};
use super::log::LogEntry;
use super::message::Encoded;
use super::slab::Key;
use super::types::{Source, WatchStream, Watcher, WatcherState};
use crate::limits;
use crate::state_machine::watch::Batch;

/// Result of one read of the log by a client watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadOutcome {
    /// There may be more to read.
    More,
    /// The client watcher has reached the frontier or is no longer behind.
    Done,
}

impl Hub {
    /// Processes a batch of a feed.
    pub(super) fn feed_events(&mut self, key: Key, batch: Arc<Batch>) {
        self.update_known(batch.header);
        self.update_known_revision(batch.frontier);
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        if !source.live || batch.frontier <= source.frontier {
            return;
        }
        let before = source.frontier;
        source.frontier = batch.frontier;
        let mut matched = Vec::new();
        for (at, event) in batch.events.iter().enumerate() {
            source.index.for_each_containing(&event.key, |group_key| {
                if let Some(group) = self.groups.get_mut(group_key)
                    && group.filter.matches(event)
                {
                    if group.matches.is_empty() {
                        matched.push(group_key);
                    }
                    group.matches.push(at as u32);
                }
            });
        }
        let mut entry = LogEntry::new(batch);
        for group in matched {
            self.deliver(group, before, &mut entry);
        }
        self.push_log(key, entry);
        self.move_groups(key);
        self.update_paused(key);
    }

    /// Processes an advance of the frontier without events.
    pub(super) fn feed_frontier(&mut self, key: Key, revision: i64) {
        self.update_known_revision(revision);
        if let Some(source) = self.sources.get_mut(key)
            && source.live
            && revision > source.frontier
        {
            source.frontier = revision;
            self.move_groups(key);
        }
    }

    /// Sends the events of a batch that match the group to its members with send capacity. The
    /// other members become [`WatcherState::Behind`].
    fn deliver(&mut self, key: Key, before: i64, entry: &mut LogEntry) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let matches = std::mem::take(&mut group.matches);
        let batch = Arc::clone(&entry.batch);
        let events = matches.iter().map(|at| &batch.events[*at as usize]);
        let revisions = events.clone().map(|event| event.revision);
        let (first, last) = (revisions.clone().min(), revisions.max());
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        let mut shared: Option<Encoded> = None;
        let mut behind = 0;
        for w in &group.members {
            let Some(watcher) = self.watchers.get_mut(*w) else {
                continue;
            };
            if watcher.state != WatcherState::Following || watcher.next > last {
                continue;
            }
            let Some(stream) = self.streams.get_mut(watcher.stream) else {
                continue;
            };
            if stream.capacity <= 0 {
                set_next(watcher, watcher.next.max(before + 1));
                watcher.state = WatcherState::Behind;
                queue_behind(stream, *w, watcher);
                behind += 1;
                continue;
            }
            let mut own;
            let (encoded, from) = if watcher.next > first {
                own = Encoded::new(&batch, watcher.next, &group.filter);
                (&mut own, watcher.next)
            } else {
                let make = || Encoded::of(&batch, events.clone(), &group.filter);
                (shared.get_or_insert_with(make), i64::MIN)
            };
            if watcher.fragment {
                encoded.split(&batch, from, &group.filter, self.settings.fragment_bytes);
            }
            self.counts.events_sent += encoded.events as u64;
            send_encoded(
                watcher,
                stream,
                encoded,
                batch.header.revision,
                &mut self.actions,
            );
        }
        if behind > 0 {
            if let Some(source) = self.sources.get_mut(group.source) {
                source.following -= behind;
                self.counts.following -= behind;
            }
            // Several client watchers will read this encoding from the log.
            if let Some(shared) = shared.filter(|_| behind > 1) {
                entry.store(key, shared);
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
        // One source uses at most this share of the log.
        let share = self.settings.log_bytes / limits::WATCH_LOG_SHARE;
        while source.log.bytes() > share && source.log.len() > 1 {
            self.log_bytes -= evict(source);
            self.log_entries -= 1;
        }
        self.bound_log();
    }

    /// Evicts the oldest batches above the log limit. The last batch of a catch-up is never
    /// evicted, so a catch-up always advances its client watchers by at least one batch.
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
        // Remove the entries of closed sources, and of batches that a source evicted at its share.
        if self.log_order.len() > 2 * self.log_entries + 64 {
            let sources = &self.sources;
            let exists = |(key, number): &(Key, u64)| {
                sources
                    .get(*key)
                    .is_some_and(|source| source.log.contains(*number))
            };
            self.log_order.retain(exists);
        }
    }

    /// Continues streams that are ready, until the budget of this turn is used up.
    pub(super) fn pump(&mut self, budget: &mut usize) {
        while *budget > 0
            && let Some(key) = self.ready.pop_front()
        {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            stream.ready = false;
            self.find_sources(key, budget);
            self.read_stream(key, budget);
            self.queue_if_ready(key);
        }
    }

    /// Lets the client watchers of the stream that are behind read the log in turn.
    fn read_stream(&mut self, key: Key, budget: &mut usize) {
        while *budget > 0
            && let Some(stream) = self.streams.get_mut(key)
            && stream.capacity > 0
            && let Some(w) = stream.behind.pop_front()
        {
            if let Some(watcher) = self.watchers.get_mut(w) {
                watcher.queued = false;
                if self.read(w, budget) == ReadOutcome::More {
                    self.queue_behind(w);
                }
            }
        }
    }

    /// Sends the client watcher the next batch of the log that contains events for it.
    fn read(&mut self, w: Key, budget: &mut usize) -> ReadOutcome {
        let Some(watcher) = self.watchers.get_mut(w) else {
            return ReadOutcome::Done;
        };
        if watcher.state != WatcherState::Behind {
            return ReadOutcome::Done;
        }
        let Some(group) = self.groups.get(watcher.group) else {
            return ReadOutcome::Done;
        };
        let (Some(source), Some(stream)) = (
            self.sources.get_mut(group.source),
            self.streams.get_mut(watcher.stream),
        ) else {
            return ReadOutcome::Done;
        };
        if watcher.next < source.log_from {
            watcher.state = WatcherState::NeedsCatchUp;
            self.queue_catch_up(w);
            return ReadOutcome::Done;
        }
        while *budget > 0 {
            let Some(at) = source.log.from(watcher.next) else {
                set_next(watcher, watcher.next.max(source.frontier + 1));
                watcher.state = WatcherState::Following;
                source.following += 1;
                self.counts.following += 1;
                let source = group.source;
                self.update_paused(source);
                self.move_one(w);
                return ReadOutcome::Done;
            };
            let batch = Arc::clone(&source.log.entry(at).batch);
            let whole = batch
                .events
                .first()
                .is_some_and(|e| e.revision >= watcher.next);
            // Fragments are made per client watcher: a batch that large is rare.
            let limit = self.settings.fragment_bytes;
            let in_parts = watcher.fragment && batch.bytes >= limit;
            let mut own;
            let (encoded, work) = if whole && group.members.len() > 1 && !in_parts {
                let make = |batch: &Batch| Encoded::new(batch, i64::MIN, &group.filter);
                let (encoded, work, added) = source.log.encoded(at, watcher.group, make);
                self.log_bytes += added;
                (encoded, work)
            } else {
                own = Encoded::new(&batch, watcher.next, &group.filter);
                if in_parts {
                    own.split(&batch, watcher.next, &group.filter, limit);
                }
                (&mut own, 1 + batch.events.len())
            };
            *budget = budget.saturating_sub(work);
            set_next(watcher, batch.frontier + 1);
            if encoded.events > 0 {
                self.counts.events_sent += encoded.events as u64;
                send_encoded(
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
        ReadOutcome::More
    }

    /// Queues the client watcher in its stream, to read the log when the stream has send capacity.
    pub(super) fn queue_behind(&mut self, w: Key) {
        if let Some(watcher) = self.watchers.get_mut(w)
            && watcher.state == WatcherState::Behind
        {
            let key = watcher.stream;
            if let Some(stream) = self.streams.get_mut(key) {
                queue_behind(stream, w, watcher);
                if stream.behind.len() > 2 * stream.watchers.len() + 64 {
                    let watchers = &self.watchers;
                    stream.behind.retain(|w| watchers.get(*w).is_some());
                }
            }
            self.queue_if_ready(key);
        }
    }

    /// Queues the stream as ready if it has send capacity and something to read.
    pub(super) fn queue_if_ready(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.capacity > 0
            && !stream.ready
            && (!stream.behind.is_empty()
                || !(stream.needs_catch_up.is_empty() || stream.waits_for_slot))
        {
            stream.ready = true;
            self.ready.push_back(key);
        }
    }

    /// Pauses a catch-up if none of its client watchers can accept events, else resumes it.
    pub(super) fn update_paused(&mut self, key: Key) {
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        // A retiring catch-up has ended or is about to end.
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

/// Sends an encoded batch to one client watcher.
fn send_encoded(
    watcher: &mut Watcher,
    stream: &mut WatchStream,
    encoded: &Encoded,
    revision: i64,
    actions: &mut Vec<Action>,
) {
    for message in encoded.messages(watcher.id, watcher.fragment) {
        stream.send(watcher.stream, message, actions);
        stream.sent_revision = stream.sent_revision.max(revision);
        watcher.sent_recently = true;
    }
}

fn set_next(watcher: &mut Watcher, next: i64) {
    watcher.at_start &= watcher.next == next;
    watcher.next = next;
}

fn queue_behind(stream: &mut WatchStream, w: Key, watcher: &mut Watcher) {
    if !std::mem::replace(&mut watcher.queued, true) {
        stream.behind.push_back(w);
    }
}

fn evict(source: &mut Source) -> usize {
    let Some((bytes, frontier)) = source.log.evict() else {
        return 0;
    };
    source.log_from = source.log_from.max(frontier + 1);
    bytes
}
