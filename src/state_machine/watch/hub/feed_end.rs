//! Start and end of feeds, and the effect on the client watchers and requests that depend on them.

use std::collections::BTreeSet;

use super::Hub;
use super::api::{Action, CheckId, StreamId};
use super::slab::Key;
use super::types::{BarrierState, Request, WatcherState};
use crate::state_machine::watch::Unavailable;
use crate::wire::response_header::Header;

impl Hub {
    /// Makes a source live: events with revision ≥ `from` follow.
    pub(super) fn feed_live(&mut self, key: Key, from: i64, frontier: i64, header: Header) {
        self.update_known(header);
        self.update_known_revision(frontier);
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut source.live, true) {
            return;
        }
        if source.is_home() {
            source.log_from = from;
            source.frontier = frontier;
        } else {
            debug_assert_eq!(Some(from), source.start);
            source.frontier = source.frontier.max(frontier);
        }
        let waiting_creates = std::mem::take(&mut source.waiting_creates);
        let incoming_groups = source.incoming_groups.clone();
        let same_range =
            (source.is_home() && source.prev_kv).then(|| (source.identity, source.range.clone()));
        for check in waiting_creates {
            self.advance(check.stream.0);
        }
        for w in self.members(key) {
            if let Some(watcher) = self.watchers.get(w)
                && watcher.state == WatcherState::NeedsCatchUp
            {
                let stream = watcher.stream;
                self.unpark(stream);
            }
        }
        for group in incoming_groups {
            self.move_group(group);
        }
        if let Some((identity, range)) = same_range {
            // One upstream watcher is enough: plain events are cut from those with `prev_kv`.
            let identity_sources = self.by_identity.get(&identity);
            let homes = identity_sources
                .map_or(&[][..], |identity_sources| {
                    identity_sources.homes.at(&range)
                })
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
        self.update_paused(key);
    }

    /// Ends a feed because of a compaction. Client watchers with a next revision ≤ `revision` are
    /// canceled. The others move to another source.
    pub(super) fn feed_compacted(&mut self, key: Key, revision: i64) {
        self.unlist(key);
        for check in self.take_waiting_creates(key) {
            if let Some(stream) = self.streams.get_mut(check.stream.0)
                && let Some(pending) = stream.pending_create(check.request)
                && pending.create.start_revision > 0
                && pending.create.start_revision <= revision
            {
                pending.compacted = Some(revision);
            }
        }
        for w in self.members(key) {
            let next = self.next_of(w);
            if next <= revision {
                self.cancel_compacted(w, revision);
            } else {
                self.move_to_home(w);
            }
        }
        self.finish_feed(key);
    }

    /// Ends a feed that etcd refused. Client watchers and creates of exactly this range are refused
    /// too. For narrower ranges the refusal proves nothing: they try a home of their own.
    pub(super) fn feed_refused(&mut self, key: Key, reason: &str) {
        self.unlist(key);
        let Some(source) = self.sources.get(key) else {
            return;
        };
        let range = source.range.clone();
        for check in self.take_waiting_creates(key) {
            if let Some(stream) = self.streams.get_mut(check.stream.0)
                && let Some(pending) = stream.pending_create(check.request)
                && pending.range == range
            {
                pending.refused = Some(reason.to_owned());
            }
        }
        let incoming_groups = self
            .sources
            .get(key)
            .map_or_else(BTreeSet::new, |source| source.incoming_groups.clone());
        let incoming = incoming_groups
            .iter()
            .filter_map(|group| self.groups.get(*group));
        let incoming = incoming.flat_map(|group| group.members.iter().copied());
        let affected: Vec<Key> = incoming.chain(self.members(key)).collect();
        for w in affected {
            let exact = self
                .source_of(w)
                .is_some_and(|(_, group)| group.filter.range == range);
            if exact {
                self.cancel_refused(w, reason);
            } else if self
                .source_of(w)
                .is_some_and(|(_, group)| group.source == key)
            {
                self.move_to_home(w);
            }
        }
        self.finish_feed(key);
    }

    /// Refuses the creates that wait for a feed because etcd accepts no token of the identity. A
    /// create without its check result waits for that result. The feed goes on for client watchers
    /// that move to it: until it is live, another feed serves them.
    pub(super) fn feed_token_refused(&mut self, key: Key, reason: &str) {
        let Some(source) = self.sources.get_mut(key).filter(|source| !source.live) else {
            return;
        };
        let waiting_creates = std::mem::take(&mut source.waiting_creates);
        let mut undecided = Vec::new();
        for check in waiting_creates {
            let stream = self.streams.get_mut(check.stream.0);
            let pending = stream.and_then(|stream| stream.pending_create(check.request));
            match pending {
                Some(pending) if pending.check_result.is_none() => undecided.push(check),
                Some(pending) => {
                    pending.refused = Some(reason.to_owned());
                    self.unblocked_streams.push(check.stream.0);
                }
                None => {}
            }
        }
        if let Some(source) = self.sources.get_mut(key) {
            source.waiting_creates = undecided;
        }
        for stream in std::mem::take(&mut self.unblocked_streams) {
            self.advance(stream);
        }
    }

    /// Ends a feed that no endpoint can serve now. The streams of its clients end, and clients
    /// reconnect. A create without its check result is an exception: if no endpoint accepts the
    /// token of that stream, the check refuses it.
    pub(super) fn feed_lost(&mut self, key: Key, reason: Unavailable) {
        self.unlist(key);
        let mut streams = Vec::new();
        for check in self.take_waiting_creates(key) {
            if let Some(stream) = self.streams.get_mut(check.stream.0)
                && let Some(pending) = stream.pending_create(check.request)
                && pending.check_result.is_some()
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
            self.end_stream(stream, reason);
        }
        self.finish_feed(key);
    }

    /// Ends a stream from the side of the proxy.
    pub(super) fn end_stream(&mut self, key: Key, reason: Unavailable) {
        if self.streams.get(key).is_some() {
            self.actions.push(Action::EndStream {
                stream: StreamId(key),
                reason,
            });
            self.remove_stream(key);
        }
    }

    /// Cancels all client watchers and closes all feeds after a [`Hub::history_reset`].
    pub(super) fn reset_history(&mut self, header: Header) {
        self.known = header;
        let compacted = header.revision + 1;
        for key in self.sources.keys() {
            self.unlist(key);
        }
        for w in self.watchers.keys() {
            self.cancel_compacted(w, compacted);
        }
        let streams = self.streams.keys();
        for key in &streams {
            let mut held_homes = Vec::new();
            let Some(stream) = self.streams.get_mut(*key) else {
                continue;
            };
            stream.sent_revision = 0;
            stream.barrier = BarrierState::None;
            for request in &mut stream.requests {
                if let Request::Create(pending) = request {
                    held_homes.extend(pending.home.take());
                    if pending.create.start_revision > 0 {
                        pending.compacted = Some(compacted);
                    }
                }
            }
            held_homes.into_iter().for_each(|home| self.release(home));
        }
        self.close_unused_feeds();
        for key in streams {
            self.advance(key);
        }
    }

    /// Removes the creates that wait for a source from it and marks their streams as unblocked.
    fn take_waiting_creates(&mut self, key: Key) -> Vec<CheckId> {
        let Some(source) = self.sources.get_mut(key) else {
            return Vec::new();
        };
        let waiting_creates = std::mem::take(&mut source.waiting_creates);
        self.unblocked_streams
            .extend(waiting_creates.iter().map(|check| check.stream.0));
        waiting_creates
    }

    /// Removes a source after its client watchers have moved or ended. Groups that were to move to
    /// this source choose another target, and the creates that waited for it continue.
    fn finish_feed(&mut self, key: Key) {
        let incoming_groups = self
            .sources
            .get(key)
            .map_or_else(BTreeSet::new, |source| source.incoming_groups.clone());
        for group in incoming_groups {
            self.set_target(group);
            self.move_group(group);
        }
        self.remove_source(key);
        for stream in std::mem::take(&mut self.unblocked_streams) {
            self.advance(stream);
        }
    }

    /// Moves the client watcher to a home for its range, where it finds a source to continue from.
    fn move_to_home(&mut self, w: Key) {
        let Some((source, group)) = self.source_of(w) else {
            return;
        };
        let (identity, range, prev_kv) = (
            source.identity,
            group.filter.range.clone(),
            group.filter.prev_kv,
        );
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
