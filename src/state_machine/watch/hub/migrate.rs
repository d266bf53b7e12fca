//! Moves of client watchers between sources.
//!
//! There is one kind of move: from a catch-up to a home, from a wide to a narrow range, from plain
//! to `prev_kv` and back. A client watcher moves alone, when its next revision is ≥ `log_from` of
//! the other source, and its next revision does not change. So no event is lost or sent twice, and
//! it does not matter how far each source has advanced (I1, I2).

use super::Hub;
use super::slab::Key;
use super::types::{Source, WatcherState};
use crate::limits;

impl Hub {
    /// Chooses a home that the members of the group move to.
    pub(super) fn set_target(&mut self, key: Key) {
        let Some(group) = self.groups.get(key) else {
            return;
        };
        let Some(source) = self.sources.get(group.source) else {
            return;
        };
        let (identity, filter, before) = (source.identity, group.filter.clone(), group.target);
        let target = self.home(identity, &filter.range, filter.prev_kv);
        self.hold(target);
        if let Some(source) = self.sources.get_mut(target) {
            source.incoming_groups.insert(key);
        }
        if let Some(group) = self.groups.get_mut(key) {
            group.target = Some(target);
        }
        if let Some(before) = before {
            self.clear_target(key, before);
        }
    }

    /// Removes the group from those that move to `target`.
    pub(super) fn clear_target(&mut self, key: Key, target: Key) {
        if let Some(source) = self.sources.get_mut(target) {
            source.incoming_groups.remove(&key);
        }
        self.release(target);
    }

    /// Moves the members of the source's groups that can move. Called when its frontier advanced.
    pub(super) fn move_groups(&mut self, key: Key) {
        let Some(source) = self.sources.get(key) else {
            return;
        };
        // Client watchers that are behind move one by one as they read on.
        if source.following > 0 && (source.retiring || !source.is_home()) {
            for group in source.groups.clone() {
                self.move_group(group);
            }
        }
    }

    /// Moves the members of the group that can move.
    pub(super) fn move_group(&mut self, key: Key) {
        let Some(group) = self.groups.get(key) else {
            return;
        };
        let Some(target) = group.target.and_then(|key| self.sources.get(key)) else {
            return;
        };
        let Some(source) = self.sources.get(group.source) else {
            return;
        };
        let is_home = source.is_home();
        let (frontier, log_from) = (source.frontier, target.log_from);
        if !target.live {
            return;
        }
        let movable = |w: &Key| {
            self.watchers.get(*w).is_some_and(|watcher| {
                let needs_catch_up = watcher.state == WatcherState::NeedsCatchUp;
                watcher.next(frontier) >= log_from || (needs_catch_up && is_home)
            })
        };
        let members: Vec<Key> = group.members.iter().copied().filter(movable).collect();
        for w in members {
            self.move_to_target(w);
        }
    }

    /// Moves one client watcher to the target of its group, if the log of the target contains its
    /// next revision.
    pub(super) fn move_one(&mut self, w: Key) {
        let Some((source, group)) = self.source_of(w) else {
            return;
        };
        let target = group.target.and_then(|key| self.sources.get(key));
        let (Some(target), Some(watcher)) = (target, self.watchers.get(w)) else {
            return;
        };
        if target.live && watcher.next(source.frontier) >= target.log_from {
            self.move_to_target(w);
        }
    }

    fn move_to_target(&mut self, w: Key) {
        if let Some((_, group)) = self.source_of(w)
            && let Some(target) = group.target
        {
            self.move_to(w, target);
        }
    }

    /// Moves a client watcher to another source. Its next revision does not change.
    pub(super) fn move_to(&mut self, w: Key, to: Key) {
        let Some((source, group)) = self.source_of(w) else {
            return;
        };
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        let (next, filter) = (watcher.next(source.frontier), group.filter.clone());
        self.hold(to);
        self.detach(w);
        self.attach(w, to, &filter, next);
        self.release(to);
    }

    /// Schedules a check of a home that is oversized, after [`limits::WATCH_NARROW_AFTER`].
    pub(super) fn queue_narrow_check(&mut self, key: Key) {
        if let Some(source) = self.sources.get_mut(key)
            && source.is_home()
            && source.members > 0
            && is_oversized(source)
            && !source.narrow_check_queued
            && !source.retiring
        {
            source.narrow_check_queued = true;
            self.narrow_checks
                .push_back((self.now + limits::WATCH_NARROW_AFTER, key));
        }
    }

    /// Replaces homes that have been oversized for the whole delay.
    pub(super) fn narrow(&mut self) {
        while let Some((due, key)) = self.narrow_checks.front().copied()
            && due <= self.now
        {
            self.narrow_checks.pop_front();
            if let Some(source) = self.sources.get_mut(key) {
                source.narrow_check_queued = false;
                // A request or a group that waits for this home may need its whole range.
                let is_awaited = source.hold_count > 0;
                if source.live && !is_awaited && source.members > 0 && is_oversized(source) {
                    self.retire(key);
                } else {
                    self.queue_narrow_check(key);
                }
            }
        }
    }

    /// Moves the groups of the source to other homes. The source ends with its last client watcher.
    pub(super) fn retire(&mut self, key: Key) {
        let Some(source) = self.sources.get(key).filter(|source| !source.retiring) else {
            return;
        };
        let (identity, range) = (source.identity, source.range.clone());
        let groups: Vec<Key> = source
            .incoming_groups
            .iter()
            .chain(&source.groups)
            .copied()
            .collect();
        let needs_range =
            source.exact_members > 0 || source.groups.len() > limits::WATCH_NARROW_GROUPS;
        let prev_kv = source.prev_kv_members > 0;
        self.unlist(key);
        if needs_range {
            // Opened first, so that the groups find this home.
            self.home(identity, &range, prev_kv);
        }
        for group in groups {
            self.set_target(group);
            self.move_group(group);
        }
    }
}

/// Returns whether a home costs etcd more than its client watchers need.
fn is_oversized(source: &Source) -> bool {
    let wide = source.exact_members == 0 && source.groups.len() <= limits::WATCH_NARROW_GROUPS;
    wide || (source.prev_kv && source.prev_kv_members == 0)
}
