//! Catch-ups, for client watchers with a next revision below `log_from` of their source.
//!
//! Each such client watcher opens a catch-up feed or shares one that is near. A catch-up is opened
//! only when the stream has send capacity. A catch-up is closed when another one needs its slot and
//! none of its client watchers can accept events, so a stopped client occupies no slot (W9).

use super::Hub;
use super::slab::Key;
use super::types::WatcherState;
use crate::limits;

impl Hub {
    /// Finds a source for each client watcher of the stream that needs a catch-up.
    pub(super) fn find_sources(&mut self, key: Key, budget: &mut usize) {
        while *budget > 0
            && let Some(stream) = self.streams.get_mut(key)
            && stream.capacity > 0
            && !stream.waits_for_slot
            && let Some(w) = stream.needs_catch_up.pop_front()
        {
            *budget -= 1;
            self.find_source(w);
        }
    }

    fn find_source(&mut self, w: Key) {
        let Some((source, group)) = self.source_of(w) else {
            return;
        };
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        if watcher.state != WatcherState::NeedsCatchUp {
            return;
        }
        let (next, stream) = (watcher.next, watcher.stream);
        if (source.live || !source.is_home()) && next >= source.log_from {
            let source_key = group.source;
            self.move_to(w, source_key);
            return;
        }
        if source.is_home() && !source.live && next > self.known.revision {
            // The events that the client watcher needs are likely among the first that the home
            // delivers.
            self.park(w, stream);
            return;
        }
        let (identity, filter) = (source.identity, group.filter.clone());
        let near = |key: &&Key| {
            self.sources.get(**key).is_some_and(|source| {
                source.serves(&filter.range, filter.prev_kv)
                    && source.log_from <= next
                    && next
                        <= source
                            .frontier
                            .saturating_add(limits::CATCH_UP_SHARE_REVISIONS)
            })
        };
        let identity_sources = self.by_identity.get(&identity);
        let found = identity_sources
            .and_then(|identity_sources| identity_sources.catch_ups.iter().find(near).copied());
        if let Some(key) = found {
            self.move_to(w, key);
        } else if self.make_slot() {
            let key = self.open(identity, filter.range, filter.prev_kv, Some(next));
            self.move_to(w, key);
        } else {
            // The other watchers of the stream that need a catch-up wait with this one.
            if let Some(waiting) = self.streams.get_mut(stream) {
                waiting.needs_catch_up.push_front(w);
                waiting.waits_for_slot = true;
                self.slot_waiters.push_back(stream);
            }
        }
    }

    /// Returns whether one more catch-up may be opened. Closes a paused catch-up if necessary.
    pub(super) fn make_slot(&mut self) -> bool {
        while self.catch_ups >= self.settings.catch_ups {
            let Some((_, key)) = self.paused.pop_front() else {
                return false;
            };
            self.close_paused(key);
        }
        true
    }

    /// Closes catch-ups that have been paused for [`limits::CATCH_UP_IDLE_TIME`].
    pub(super) fn close_idle_catch_ups(&mut self) {
        while let Some((due, key)) = self.paused.front().copied()
            && due <= self.now
        {
            self.paused.pop_front();
            self.close_paused(key);
        }
    }

    /// Makes the first stream that waits for a slot ready again, if a slot is free. Returns false
    /// if nothing changed.
    pub(super) fn assign_free_slot(&mut self) -> bool {
        while !self.slot_waiters.is_empty() && self.make_slot() {
            let key = self.slot_waiters.pop_front();
            if let Some(key) = key
                && let Some(stream) = self.streams.get_mut(key)
            {
                stream.waits_for_slot = false;
                self.queue_if_ready(key);
                return true;
            }
        }
        false
    }

    /// Closes a paused catch-up: none of its client watchers can accept events. The client watchers
    /// move to their homes and wait there until they have send capacity.
    fn close_paused(&mut self, key: Key) {
        if !self.sources.get(key).is_some_and(|source| source.paused) {
            return;
        }
        self.unlist(key);
        for w in self.members(key) {
            let target = self.source_of(w).and_then(|(_, group)| group.target);
            if let Some(target) = target {
                self.move_to(w, target);
            }
        }
    }

    /// Returns the client watchers of a source.
    pub(super) fn members(&self, key: Key) -> Vec<Key> {
        let groups = self
            .sources
            .get(key)
            .map_or(&[][..], |source| &source.groups);
        let members = groups.iter().filter_map(|group| self.groups.get(*group));
        members
            .flat_map(|group| group.members.iter().copied())
            .collect()
    }

    /// Queues a client watcher that needs a catch-up in its stream.
    pub(super) fn queue_catch_up(&mut self, w: Key) {
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        let key = watcher.stream;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.needs_catch_up.push_back(w);
        }
        self.queue_if_ready(key);
    }

    fn park(&mut self, w: Key, stream: Key) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.parked.push(w);
            if stream.parked.len() > 2 * stream.watchers.len() + 64 {
                let watchers = &self.watchers;
                stream.parked.retain(|w| watchers.get(*w).is_some());
            }
        }
    }

    /// Queues the parked client watchers of the stream to find a source.
    pub(super) fn unpark(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.needs_catch_up.extend(stream.parked.drain(..));
            self.queue_if_ready(key);
        }
    }
}
