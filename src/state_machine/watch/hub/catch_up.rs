//! C-watchers that no log reaches back to: each gets a catch-up feed, or shares one, in its turn.
//!
//! A catch-up is opened only when the stream has room, and gives its place up when nobody can take
//! what it tells: a stopped client holds none (W9).

use super::Hub;
use super::slab::Key;
use super::types::WatcherState;
use crate::limits;

impl Hub {
    /// Finds places for the stream's c-watchers that are adrift.
    pub(super) fn find_places(&mut self, key: Key, budget: &mut usize) {
        while *budget > 0
            && let Some(stream) = self.streams.get_mut(key)
            && stream.room > 0
            && !stream.wants_slot
            && let Some(w) = stream.adrift.pop_front()
        {
            *budget -= 1;
            self.find_place(w);
        }
    }

    fn find_place(&mut self, w: Key) {
        let Some((source, group)) = self.source_of(w) else {
            return;
        };
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        if watcher.standing != WatcherState::Adrift {
            return;
        }
        let (next, stream) = (watcher.next, watcher.stream);
        if (source.live || !source.is_home()) && next >= source.log_from {
            let here = group.source;
            self.move_to(w, here);
            return;
        }
        if source.is_home() && !source.live && next > self.known.revision {
            // Likely in what the home is about to tell.
            self.park(w, stream);
            return;
        }
        let (identity, cut) = (source.identity, group.cut.clone());
        let near = |key: &&Key| {
            self.sources.get(**key).is_some_and(|source| {
                source.serves(&cut.range, cut.prev_kv)
                    && source.log_from <= next
                    && next
                        <= source
                            .frontier
                            .saturating_add(limits::CATCH_UP_SHARE_REVISIONS)
            })
        };
        let tribe = self.tribes.get(&identity);
        let found = tribe.and_then(|tribe| tribe.catch_ups.iter().find(near).copied());
        if let Some(key) = found {
            self.move_to(w, key);
        } else if self.has_slot() {
            let key = self.open(identity, cut.range, cut.prev_kv, Some(next));
            self.move_to(w, key);
        } else {
            // The rest of its stream waits with it.
            if let Some(waits) = self.streams.get_mut(stream) {
                waits.adrift.push_front(w);
                waits.wants_slot = true;
                self.slot_waiters.push_back(stream);
            }
        }
    }

    /// Whether one more catch-up may be opened; makes room for it if that can be done.
    pub(super) fn has_slot(&mut self) -> bool {
        while self.catch_ups >= self.settings.catch_ups {
            let Some((_, key)) = self.paused.pop_front() else {
                return false;
            };
            self.give_up(key);
        }
        true
    }

    /// Gives up catch-ups that have been paused for a while.
    pub(super) fn stop_paused(&mut self) {
        while let Some((due, key)) = self.paused.front().copied()
            && due <= self.now
        {
            self.paused.pop_front();
            self.give_up(key);
        }
    }

    /// Lets a stream try again that waits for a slot, if there is one. False when nothing changes.
    pub(super) fn use_slot(&mut self) -> bool {
        while !self.slot_waiters.is_empty() && self.has_slot() {
            let key = self.slot_waiters.pop_front();
            if let Some(key) = key
                && let Some(stream) = self.streams.get_mut(key)
            {
                stream.wants_slot = false;
                self.look_ready(key);
                return true;
            }
        }
        false
    }

    /// A catch-up that nobody can take from makes way; its c-watchers wait at their homes until
    /// they have room.
    fn give_up(&mut self, key: Key) {
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

    /// The c-watchers of a source.
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

    /// Puts an adrift c-watcher among those of its stream to be seen to.
    pub(super) fn queue_adrift(&mut self, w: Key) {
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        let key = watcher.stream;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.adrift.push_back(w);
        }
        self.look_ready(key);
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

    /// The stream's parked c-watchers are to be seen to.
    pub(super) fn unpark(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.adrift.extend(stream.parked.drain(..));
            self.look_ready(key);
        }
    }
}
