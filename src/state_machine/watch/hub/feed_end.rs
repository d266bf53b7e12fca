//! Feeds that begin and end, and what that means for those who wait for them or are served.

use std::collections::BTreeSet;

use super::Hub;
use super::api::{Action, CheckId, StreamId};
use super::slab::Key;
use super::types::{Barrier, Request, WatcherState};
use crate::state_machine::watch::Unavailable;
use crate::wire::response_header::Header;

impl Hub {
    /// A feed tells from here on.
    pub(super) fn live(&mut self, key: Key, from: i64, through: i64, header: Header) {
        self.note(header);
        self.note_revision(through);
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut source.live, true) {
            return;
        }
        if source.is_home() {
            source.log_from = from;
            source.frontier = through;
        } else {
            debug_assert_eq!(Some(from), source.start);
            source.frontier = source.frontier.max(through);
        }
        let askers = std::mem::take(&mut source.askers);
        let suitors = source.suitors.clone();
        let plainer =
            (source.is_home() && source.prev_kv).then(|| (source.identity, source.range.clone()));
        for check in askers {
            self.advance(check.stream.0);
        }
        for w in self.members(key) {
            if let Some(watcher) = self.watchers.get(w)
                && watcher.standing == WatcherState::Adrift
            {
                let stream = watcher.stream;
                self.unpark(stream);
            }
        }
        for group in suitors {
            self.move_group(group);
        }
        if let Some((identity, range)) = plainer {
            // One is enough at etcd: the plain ones are cut from it.
            let tribe = self.tribes.get(&identity);
            let homes = tribe
                .map_or(&[][..], |tribe| tribe.homes.at(&range))
                .to_vec();
            for other in homes {
                if self
                    .sources
                    .get(other)
                    .is_some_and(|home| !home.prev_kv && home.live)
                {
                    self.retire(other);
                }
            }
        }
        self.look_paused(key);
    }

    /// History up to `revision` is gone: who needs it ends, the others find another source.
    pub(super) fn compacted(&mut self, key: Key, revision: i64) {
        self.unlist(key);
        for check in self.take_askers(key) {
            if let Some(stream) = self.streams.get_mut(check.stream.0)
                && let Some(asked) = stream.asked(check.request)
                && asked.create.start_revision > 0
                && asked.create.start_revision <= revision
            {
                asked.compacted = Some(revision);
            }
        }
        for w in self.members(key) {
            let next = self.next_of(w);
            if next <= revision {
                self.cancel_compacted(w, revision);
            } else {
                self.rehome(w);
            }
        }
        self.over(key);
    }

    /// etcd refuses the range. Who wants just that range is refused; for the others it is no answer.
    pub(super) fn refused(&mut self, key: Key, reason: &str) {
        self.unlist(key);
        let Some(source) = self.sources.get(key) else {
            return;
        };
        let range = source.range.clone();
        for check in self.take_askers(key) {
            if let Some(stream) = self.streams.get_mut(check.stream.0)
                && let Some(asked) = stream.asked(check.request)
                && asked.range == range
            {
                asked.refused = Some(reason.to_owned());
            }
        }
        let suitors = self
            .sources
            .get(key)
            .map_or_else(BTreeSet::new, |source| source.suitors.clone());
        let waiting = suitors.iter().filter_map(|group| self.groups.get(*group));
        let waiting = waiting.flat_map(|group| group.members.iter().copied());
        let concerned: Vec<Key> = waiting.chain(self.members(key)).collect();
        for w in concerned {
            let exact = self
                .source_of(w)
                .is_some_and(|(_, group)| group.cut.range == range);
            if exact {
                self.cancel_refused(w, reason);
            } else if self
                .source_of(w)
                .is_some_and(|(_, group)| group.source == key)
            {
                self.rehome(w);
            }
        }
        self.over(key);
    }

    /// Nobody can serve the feed now: its clients come again. Not those whose check is not answered:
    /// it may be their very tokens that no endpoint takes, and then they are refused.
    pub(super) fn lost(&mut self, key: Key, why: Unavailable) {
        self.unlist(key);
        let mut streams = Vec::new();
        for check in self.take_askers(key) {
            if let Some(stream) = self.streams.get_mut(check.stream.0)
                && let Some(asked) = stream.asked(check.request)
                && asked.verdict.is_some()
            {
                streams.push(check.stream.0);
            }
        }
        let members = self.members(key);
        streams.extend(
            members
                .iter()
                .filter_map(|w| Some(self.watchers.get(*w)?.stream)),
        );
        for stream in streams {
            self.end(stream, why);
        }
        self.over(key);
    }

    /// Ends a stream from this side.
    pub(super) fn end(&mut self, key: Key, why: Unavailable) {
        if self.streams.get(key).is_some() {
            self.actions.push(Action::End {
                stream: StreamId(key),
                why,
            });
            self.remove_stream(key);
        }
    }

    /// See [`Hub::history_reset`].
    pub(super) fn reset(&mut self, header: Header) {
        self.known = header;
        let gone = header.revision + 1;
        for key in self.sources.keys() {
            self.unlist(key);
        }
        for w in self.watchers.keys() {
            self.cancel_compacted(w, gone);
        }
        let streams = self.streams.keys();
        for key in &streams {
            let mut held = Vec::new();
            let Some(stream) = self.streams.get_mut(*key) else {
                continue;
            };
            stream.sent = 0;
            stream.barrier = Barrier::None;
            for request in &mut stream.requests {
                if let Request::Create(asked) = request {
                    held.extend(asked.home.take());
                    if asked.create.start_revision > 0 {
                        asked.compacted = Some(gone);
                    }
                }
            }
            held.into_iter().for_each(|home| self.release(home));
        }
        self.sweep();
        for key in streams {
            self.advance(key);
        }
    }

    /// Takes the requests that wait for a source off it.
    fn take_askers(&mut self, key: Key) -> Vec<CheckId> {
        let Some(source) = self.sources.get_mut(key) else {
            return Vec::new();
        };
        let askers = std::mem::take(&mut source.askers);
        self.stale.extend(askers.iter().map(|check| check.stream.0));
        askers
    }

    /// The feed is over and its c-watchers are seen to: those who wanted to move to it look for
    /// another, and the requests that waited go on.
    fn over(&mut self, key: Key) {
        let suitors = self
            .sources
            .get(key)
            .map_or_else(BTreeSet::new, |source| source.suitors.clone());
        for group in suitors {
            self.aim(group);
            self.move_group(group);
        }
        self.forget(key);
        for stream in std::mem::take(&mut self.stale) {
            self.advance(stream);
        }
    }

    /// The c-watcher waits at a home of its own for a place from which to go on.
    fn rehome(&mut self, w: Key) {
        let Some((source, group)) = self.source_of(w) else {
            return;
        };
        let (identity, range, prev_kv) =
            (source.identity, group.cut.range.clone(), group.cut.prev_kv);
        let home = self.home(identity, &range, prev_kv);
        self.move_to(w, home);
    }

    fn next_of(&self, w: Key) -> i64 {
        match (self.source_of(w), self.watchers.get(w)) {
            (Some((source, _)), Some(watcher)) => watcher.next(source.frontier),
            _ => 0,
        }
    }
}
