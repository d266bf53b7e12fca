//! Which source serves a c-watcher: homes found or opened, joined, left and closed.

use super::api::{Action, FeedId, IdentityId};
use super::slab::Key;
use super::types::{Group, Source, WatcherState};
use super::{Hub, IdentitySources};
use crate::wire::range::KeyRange;
use crate::wire::watch::answer::Cut;

impl Hub {
    /// The home that serves a range: one that stands, of exactly this range if there is one, else
    /// a new one. Open or opening; it ends unless it is held or joined.
    pub(super) fn home(&mut self, identity: IdentityId, range: &KeyRange, prev_kv: bool) -> Key {
        let mut best: Option<((bool, bool, bool), Key)> = None;
        if let Some(tribe) = self.tribes.get(&identity) {
            tribe.homes.holding(range.start(), |key| {
                let Some(source) = self.sources.get(key) else {
                    return;
                };
                if source.serves(range, prev_kv) {
                    let exact = source.range == *range;
                    let merit = (source.live, exact, source.prev_kv == prev_kv);
                    if best.is_none_or(|(other, _)| other < merit) {
                        best = Some((merit, key));
                    }
                }
            });
        }
        match best {
            Some((_, key)) => key,
            None => self.open(identity, range.clone(), prev_kv, None),
        }
    }

    /// Opens a feed, a catch-up if it has a start.
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
        let tribe = self
            .tribes
            .entry(identity)
            .or_insert_with(IdentitySources::new);
        match start {
            None => tribe.homes.insert(&range, key),
            Some(_) => {
                tribe.catch_ups.push(key);
                self.catch_ups += 1;
                self.counts.catch_ups += 1;
                self.counts.catch_ups_opened += 1;
            }
        }
        self.idle.push(key);
        self.actions.push(Action::OpenFeed {
            feed: FeedId(key),
            identity,
            range,
            prev_kv,
            start,
        });
        key
    }

    /// Nobody joins it any more.
    pub(super) fn unlist(&mut self, key: Key) {
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut source.retiring, true) {
            return;
        }
        let identity = source.identity;
        let Some(tribe) = self.tribes.get_mut(&identity) else {
            return;
        };
        if source.is_home() {
            tribe.homes.remove(&source.range, key);
        } else {
            tribe.catch_ups.retain(|other| *other != key);
            self.catch_ups -= 1;
        }
        if tribe.homes.is_empty() && tribe.catch_ups.is_empty() {
            self.tribes.remove(&identity);
        }
    }

    /// Closes the feeds that nobody needs (W11).
    pub(super) fn sweep(&mut self) {
        while let Some(key) = self.idle.pop() {
            let Some(source) = self.sources.get(key) else {
                continue;
            };
            if source.groups.is_empty() && source.holds == 0 {
                self.forget(key);
                self.actions.push(Action::CloseFeed(FeedId(key)));
            }
        }
    }

    /// The source is no more. Its groups are gone or taken care of.
    pub(super) fn forget(&mut self, key: Key) {
        self.unlist(key);
        if let Some(source) = self.sources.remove(key) {
            self.counts.catch_ups -= usize::from(!source.is_home());
            self.log_bytes -= source.log.bytes();
            self.log_entries -= source.log.len();
        }
    }

    pub(super) fn hold(&mut self, key: Key) {
        if let Some(source) = self.sources.get_mut(key) {
            source.holds += 1;
        }
    }

    pub(super) fn release(&mut self, key: Key) {
        if let Some(source) = self.sources.get_mut(key) {
            source.holds -= 1;
            self.idle.push(key);
            self.look_needed(key);
        }
    }

    /// Makes the c-watcher a member of the source, with this next revision. It is of no other.
    pub(super) fn attach(&mut self, w: Key, source_key: Key, cut: &Cut, next: i64) {
        let group_key = self.group(source_key, cut);
        let (Some(source), Some(group), Some(watcher)) = (
            self.sources.get_mut(source_key),
            self.groups.get_mut(group_key),
            self.watchers.get_mut(w),
        ) else {
            return;
        };
        watcher.group = group_key;
        watcher.place = group.members.len() as u32;
        group.members.push(w);
        watcher.at_start &= watcher.next == next;
        watcher.next = next;
        source.members += 1;
        source.exact += usize::from(group.exact);
        source.with_prev += usize::from(cut.prev_kv);
        let readable = source.live || !source.is_home();
        watcher.standing = if !readable || next < source.log_from {
            WatcherState::Adrift
        } else if next <= source.frontier {
            WatcherState::Behind
        } else {
            WatcherState::Following
        };
        match watcher.standing {
            WatcherState::Following => {
                source.following += 1;
                self.counts.following += 1;
                self.look_paused(source_key);
            }
            WatcherState::Behind => self.queue_behind(w),
            WatcherState::Adrift => self.queue_adrift(w),
        }
    }

    /// Takes the c-watcher out of its source.
    pub(super) fn detach(&mut self, w: Key) {
        let Some(watcher) = self.watchers.get(w) else {
            return;
        };
        let (group_key, place) = (watcher.group, watcher.place as usize);
        let following = watcher.standing == WatcherState::Following;
        let Some(group) = self.groups.get_mut(group_key) else {
            return;
        };
        group.members.swap_remove(place);
        if let Some(moved) = group.members.get(place)
            && let Some(moved) = self.watchers.get_mut(*moved)
        {
            moved.place = place as u32;
        }
        let source_key = group.source;
        let empty = group.members.is_empty();
        if let Some(source) = self.sources.get_mut(source_key) {
            source.members -= 1;
            source.following -= usize::from(following);
            self.counts.following -= usize::from(following);
            source.exact -= usize::from(group.exact);
            source.with_prev -= usize::from(group.cut.prev_kv);
            self.look_paused(source_key);
            self.look_needed(source_key);
        }
        if empty {
            self.drop_group(group_key);
        }
    }

    /// The source's group of this cut, new if there is none.
    fn group(&mut self, source_key: Key, cut: &Cut) -> Key {
        let Some(source) = self.sources.get_mut(source_key) else {
            // A caller names a source that stands; the name serves nobody.
            return source_key;
        };
        let groups = &self.groups;
        let same = |key: &&Key| groups.get(**key).is_some_and(|group| group.cut == *cut);
        if let Some(key) = source.index.at(&cut.range).iter().find(same) {
            return *key;
        }
        let key = self.groups.insert(Group {
            source: source_key,
            place: source.groups.len(),
            cut: cut.clone(),
            exact: cut.range == source.range,
            members: Vec::with_capacity(1),
            target: None,
            shown: Vec::new(),
        });
        source.groups.push(key);
        source.index.insert(&cut.range, key);
        if !source.is_home() || source.retiring {
            self.aim(key);
        }
        key
    }

    fn drop_group(&mut self, key: Key) {
        let Some(group) = self.groups.remove(key) else {
            return;
        };
        if let Some(source) = self.sources.get_mut(group.source) {
            source.index.remove(&group.cut.range, key);
            source.groups.swap_remove(group.place);
            if let Some(moved) = source.groups.get(group.place)
                && let Some(moved) = self.groups.get_mut(*moved)
            {
                moved.place = group.place;
            }
            self.idle.push(group.source);
        }
        if let Some(target) = group.target {
            self.unaim(key, target);
        }
    }

    /// The source and the group of a c-watcher.
    pub(super) fn source_of(&self, w: Key) -> Option<(&Source, &Group)> {
        let group = self.groups.get(self.watchers.get(w)?.group)?;
        Some((self.sources.get(group.source)?, group))
    }
}
