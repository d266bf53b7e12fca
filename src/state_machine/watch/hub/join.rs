//! Choice of the source for a client watcher: homes are found or opened, joined, left and closed.

use super::api::{Action, FeedId, IdentityId};
use super::slab::Key;
use super::types::{Group, Source, WatcherState};
use super::{Hub, IdentitySources};
use crate::wire::range::KeyRange;
use crate::wire::watch::response::EventFilter;

impl Hub {
    /// Returns a home that serves the range, or opens one. A live home is preferred to one that is
    /// opening, and then a home of exactly this range. The home closes unless it is held or joined.
    pub(super) fn home(&mut self, identity: IdentityId, range: &KeyRange, prev_kv: bool) -> Key {
        let mut best: Option<((bool, bool, bool), Key)> = None;
        if let Some(identity_sources) = self.by_identity.get(&identity) {
            identity_sources
                .homes
                .for_each_containing(range.start(), |key| {
                    let Some(source) = self.sources.get(key) else {
                        return;
                    };
                    if source.serves(range, prev_kv) {
                        let exact = source.range == *range;
                        let rank = (source.live, exact, source.prev_kv == prev_kv);
                        if best.is_none_or(|(other, _)| other < rank) {
                            best = Some((rank, key));
                        }
                    }
                });
        }
        match best {
            Some((_, key)) => key,
            None => self.open(identity, range.clone(), prev_kv, None),
        }
    }

    /// Opens a feed: a catch-up if `start` is a revision, else a home.
    pub(super) fn open(
        &mut self,
        identity: IdentityId,
        range: KeyRange,
        prev_kv: bool,
        start: Option<i64>,
    ) -> Key {
        let key = self
            .sources
            .insert(Source::new(identity, range.clone(), prev_kv, start));
        let identity_sources = self
            .by_identity
            .entry(identity)
            .or_insert_with(IdentitySources::new);
        match start {
            None => identity_sources.homes.insert(&range, key),
            Some(_) => {
                identity_sources.catch_ups.push(key);
                self.catch_ups += 1;
                self.counts.catch_ups += 1;
                self.counts.catch_ups_opened += 1;
            }
        }
        self.maybe_unused.push(key);
        self.actions.push(Action::OpenFeed {
            feed: FeedId(key),
            identity,
            range,
            prev_kv,
            start,
        });
        key
    }

    /// Marks the source as retiring and removes it from the indexes, so that nothing joins it.
    pub(super) fn unlist(&mut self, key: Key) {
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut source.retiring, true) {
            return;
        }
        let identity = source.identity;
        let Some(identity_sources) = self.by_identity.get_mut(&identity) else {
            return;
        };
        if source.is_home() {
            identity_sources.homes.remove(&source.range, key);
        } else {
            identity_sources.catch_ups.retain(|other| *other != key);
            self.catch_ups -= 1;
        }
        if identity_sources.homes.is_empty() && identity_sources.catch_ups.is_empty() {
            self.by_identity.remove(&identity);
        }
    }

    /// Closes the feeds that no client watcher and no request needs (W11).
    pub(super) fn close_unused_feeds(&mut self) {
        while let Some(key) = self.maybe_unused.pop() {
            let Some(source) = self.sources.get(key) else {
                continue;
            };
            if source.groups.is_empty() && source.hold_count == 0 {
                self.remove_source(key);
                self.actions.push(Action::CloseFeed(FeedId(key)));
            }
        }
    }

    /// Removes a source. Its groups have been removed or moved before.
    pub(super) fn remove_source(&mut self, key: Key) {
        self.unlist(key);
        if let Some(source) = self.sources.remove(key) {
            self.counts.catch_ups -= usize::from(!source.is_home());
            self.log_bytes -= source.log.bytes();
            self.log_entries -= source.log.len();
        }
    }

    pub(super) fn hold(&mut self, key: Key) {
        if let Some(source) = self.sources.get_mut(key) {
            source.hold_count += 1;
        }
    }

    pub(super) fn release(&mut self, key: Key) {
        if let Some(source) = self.sources.get_mut(key) {
            source.hold_count -= 1;
            self.maybe_unused.push(key);
            self.queue_narrow_check(key);
        }
    }

    /// Makes the client watcher a member of the source with this next revision. The client watcher
    /// must not be a member of another source.
    pub(super) fn attach(&mut self, w: Key, source_key: Key, filter: &EventFilter, next: i64) {
        let group_key = self.group(source_key, filter);
        let (Some(source), Some(group), Some(watcher)) = (
            self.sources.get_mut(source_key),
            self.groups.get_mut(group_key),
            self.watchers.get_mut(w),
        ) else {
            return;
        };
        watcher.group = group_key;
        watcher.position = group.members.len() as u32;
        group.members.push(w);
        watcher.at_start &= watcher.next == next;
        watcher.next = next;
        source.members += 1;
        source.exact_members += usize::from(group.exact);
        source.prev_kv_members += usize::from(filter.prev_kv);
        let readable = source.live || !source.is_home();
        watcher.state = if !readable || next < source.log_from {
            WatcherState::NeedsCatchUp
        } else if next <= source.frontier {
            WatcherState::Behind
        } else {
            WatcherState::Following
        };
        match watcher.state {
            WatcherState::Following => {
                source.following += 1;
                self.counts.following += 1;
                self.update_paused(source_key);
            }
            WatcherState::Behind => self.queue_behind(w),
            WatcherState::NeedsCatchUp => self.queue_catch_up(w),
        }
    }

    /// Removes the client watcher from its source.
    pub(super) fn detach(&mut self, w: Key) {
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        let (group_key, position) = (watcher.group, watcher.position as usize);
        let following = watcher.state == WatcherState::Following;
        let Some(group) = self.groups.get_mut(group_key) else {
            return;
        };
        group.members.swap_remove(position);
        if let Some(moved) = group.members.get(position)
            && let Some(moved) = self.watchers.get_mut(*moved)
        {
            moved.position = position as u32;
        }
        let source_key = group.source;
        let empty = group.members.is_empty();
        if let Some(source) = self.sources.get_mut(source_key) {
            source.members -= 1;
            source.following -= usize::from(following);
            self.counts.following -= usize::from(following);
            source.exact_members -= usize::from(group.exact);
            source.prev_kv_members -= usize::from(group.filter.prev_kv);
            self.update_paused(source_key);
            self.queue_narrow_check(source_key);
        }
        if empty {
            self.drop_group(group_key);
        }
    }

    /// Returns the group of this source with this selection, new if there is none.
    fn group(&mut self, source_key: Key, filter: &EventFilter) -> Key {
        let Some(source) = self.sources.get_mut(source_key) else {
            // Callers pass a source that exists. This key belongs to no group.
            return source_key;
        };
        let groups = &self.groups;
        let same = |key: &&Key| {
            groups
                .get(**key)
                .is_some_and(|group| group.filter == *filter)
        };
        if let Some(key) = source.index.at(&filter.range).iter().find(same) {
            return *key;
        }
        let key = self.groups.insert(Group {
            source: source_key,
            position: source.groups.len(),
            filter: filter.clone(),
            exact: filter.range == source.range,
            members: Vec::with_capacity(1),
            target: None,
            matches: Vec::new(),
        });
        source.groups.push(key);
        source.index.insert(&filter.range, key);
        if !source.is_home() || source.retiring {
            self.set_target(key);
        }
        key
    }

    fn drop_group(&mut self, key: Key) {
        let Some(group) = self.groups.remove(key) else {
            return;
        };
        if let Some(source) = self.sources.get_mut(group.source) {
            source.index.remove(&group.filter.range, key);
            source.groups.swap_remove(group.position);
            if let Some(moved) = source.groups.get(group.position)
                && let Some(moved) = self.groups.get_mut(*moved)
            {
                moved.position = group.position;
            }
            self.maybe_unused.push(group.source);
        }
        if let Some(target) = group.target {
            self.clear_target(key, target);
        }
    }

    /// Returns the source and the group of a client watcher.
    pub(super) fn source_of(&self, w: Key) -> Option<(&Source, &Group)> {
        let group = self.groups.get(self.watchers.get(w)?.group)?;
        Some((self.sources.get(group.source)?, group))
    }
}
