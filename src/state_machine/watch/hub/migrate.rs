//! How c-watchers get from one source to another.
//!
//! One move serves all, catch-up to home, wide to narrow, plain to `prev_kv` and back: a c-watcher
//! goes over alone, when its next revision is in the other's log or ahead of it, and keeps its next
//! revision. So there is no seam at which an event could be lost or come twice, whatever the two
//! sources have told (I1, I2).

use super::Hub;
use super::slab::Key;
use super::types::{Source, WatcherState};
use crate::limits;

impl Hub {
    /// Gives the group a home to go to.
    pub(super) fn aim(&mut self, key: Key) {
        let Some(group) = self.groups.get(key) else {
            return;
        };
        let Some(source) = self.sources.get(group.source) else {
            return;
        };
        let (identity, cut, before) = (source.identity, group.cut.clone(), group.target);
        let target = self.home(identity, &cut.range, cut.prev_kv);
        self.hold(target);
        if let Some(source) = self.sources.get_mut(target) {
            source.suitors.insert(key);
        }
        if let Some(group) = self.groups.get_mut(key) {
            group.target = Some(target);
        }
        if let Some(before) = before {
            self.unaim(key, before);
        }
    }

    /// The group does not go there any more.
    pub(super) fn unaim(&mut self, key: Key, target: Key) {
        if let Some(source) = self.sources.get_mut(target) {
            source.suitors.remove(&key);
        }
        self.release(target);
    }

    /// Moves what can be moved of the source's groups. Called when its frontier has moved.
    pub(super) fn move_groups(&mut self, key: Key) {
        let Some(source) = self.sources.get(key) else {
            return;
        };
        // Those behind are moved one by one as they read on.
        if source.following > 0 && (source.retiring || !source.is_home()) {
            for group in source.groups.clone() {
                self.move_group(group);
            }
        }
    }

    /// Moves the group's members that can be moved.
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
        let adrift_too = source.is_home();
        let (frontier, log_from) = (source.frontier, target.log_from);
        if !target.live {
            return;
        }
        let movable = |w: &Key| {
            self.watchers.get(*w).is_some_and(|watcher| {
                let adrift = watcher.standing == WatcherState::Adrift;
                watcher.next(frontier) >= log_from || (adrift && adrift_too)
            })
        };
        let members: Vec<Key> = group.members.iter().copied().filter(movable).collect();
        for w in members {
            self.move_to_target(w);
        }
    }

    /// Moves one c-watcher to its group's target, if its next revision is there.
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

    /// The one move: next unchanged.
    pub(super) fn move_to(&mut self, w: Key, to: Key) {
        let Some((source, group)) = self.source_of(w) else {
            return;
        };
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        let (next, cut) = (watcher.next(source.frontier), group.cut.clone());
        self.hold(to);
        self.detach(w);
        self.attach(w, to, &cut, next);
        self.release(to);
    }

    /// A home without a c-watcher that wants all of it, or its `prev_kv`, is looked at again in a
    /// while.
    pub(super) fn look_needed(&mut self, key: Key) {
        if let Some(source) = self.sources.get_mut(key)
            && source.is_home()
            && source.members > 0
            && is_too_much(source)
            && !source.doubted
            && !source.retiring
        {
            source.doubted = true;
            self.doubts
                .push_back((self.now + limits::WATCH_NARROW_AFTER, key));
        }
    }

    /// Homes that have been more than what is needed for a while make way for what is.
    pub(super) fn narrow(&mut self) {
        while let Some((due, key)) = self.doubts.front().copied()
            && due <= self.now
        {
            self.doubts.pop_front();
            if let Some(source) = self.sources.get_mut(key) {
                source.doubted = false;
                // Who waits for it may want all of it.
                let asked_for = source.holds > 0;
                if source.live && !asked_for && source.members > 0 && is_too_much(source) {
                    self.retire(key);
                } else {
                    self.look_needed(key);
                }
            }
        }
    }

    /// The source's groups go to homes of their own; it ends with its last c-watcher.
    pub(super) fn retire(&mut self, key: Key) {
        let Some(source) = self.sources.get(key).filter(|source| !source.retiring) else {
            return;
        };
        let (identity, range) = (source.identity, source.range.clone());
        let groups: Vec<Key> = source
            .suitors
            .iter()
            .chain(&source.groups)
            .copied()
            .collect();
        let whole = source.exact > 0 || source.groups.len() > limits::WATCH_NARROW_GROUPS;
        let with_prev = source.with_prev > 0;
        self.unlist(key);
        if whole {
            // It stands before its groups look for one.
            self.home(identity, &range, with_prev);
        }
        for group in groups {
            self.aim(group);
            self.move_group(group);
        }
    }
}

/// It costs etcd more than its c-watchers want.
fn is_too_much(source: &Source) -> bool {
    let wide = source.exact == 0 && source.groups.len() <= limits::WATCH_NARROW_GROUPS;
    wide || (source.prev_kv && source.with_prev == 0)
}
