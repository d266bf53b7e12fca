//! Progress: barriers that clients ask for (W8), and notices from time to time (W7).

use super::Hub;
use super::api::{Action, StreamId};
use super::slab::Key;
use super::types::{Barrier, WatcherState};
use crate::limits;
use crate::wire::watch::Response;

impl Hub {
    /// A progress request, at its turn. A stream without a c-watcher gets no answer, as at etcd.
    pub(super) fn ask_progress(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        match &mut stream.barrier {
            Barrier::None if stream.watchers.is_empty() => {}
            Barrier::None => self.ask_etcd(key),
            Barrier::Asked { again } => *again = true,
            // etcd is asked after this request, so it counts for it too.
            Barrier::Pause(_) => {}
        }
    }

    fn ask_etcd(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.barrier = Barrier::Asked { again: false };
            self.actions.push(Action::Sync {
                stream: StreamId(key),
                identity: stream.identity,
            });
        }
    }

    /// etcd answered at `revision`. The client is told only if every c-watcher of the stream was
    /// sent all up to it, and nothing beyond it was ever sent.
    pub(super) fn barrier_stands(&mut self, key: Key, revision: i64) {
        self.note_revision(revision);
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let Barrier::Asked { again } = stream.barrier else {
            return;
        };
        stream.barrier = Barrier::None;
        let (mut all, mut future) = (revision >= stream.sent, false);
        for w in stream.watchers.values() {
            let Some(watcher) = self.watchers.get(*w) else {
                continue;
            };
            let group = self.groups.get(watcher.group);
            let frontier = group
                .and_then(|group| self.sources.get(group.source))
                .map(|s| s.frontier);
            all &= frontier.is_some_and(|frontier| watcher.next(frontier) > revision);
            // Revision 0 says nothing: there was nobody to ask.
            future |= revision > 0 && watcher.at_start && watcher.next > revision;
        }
        if future || stream.watchers.is_empty() {
            // As at etcd: no answer.
        } else if all {
            let answer = Response {
                watch_id: -1,
                header: self.header(revision),
                ..Response::default()
            };
            self.send(key, &answer);
            if again {
                self.ask_etcd(key);
            }
        } else {
            let due = self.now + limits::WATCH_BARRIER_PAUSE;
            stream.barrier = Barrier::Pause(due);
            self.barriers.push_back((due, key));
        }
    }

    /// Asks again for barriers whose pause is over.
    pub(super) fn retry_barriers(&mut self) {
        while let Some((due, key)) = self.barriers.front().copied()
            && due <= self.now
        {
            self.barriers.pop_front();
            if let Some(stream) = self.streams.get(key)
                && stream.barrier == Barrier::Pause(due)
            {
                self.ask_etcd(key);
            }
        }
    }

    /// The c-watcher's first notice is an interval away.
    pub(super) fn notify_later(&mut self, w: Key) {
        self.notices_live += 1;
        self.notices
            .push_back((self.now + self.settings.progress_interval, w));
        if self.notices.len() > 2 * self.notices_live + 64 {
            let watchers = &self.watchers;
            self.notices.retain(|(_, w)| watchers.get(*w).is_some());
        }
    }

    /// Tells c-watchers, to whom nothing was sent for an interval, how far they are. All intervals
    /// are alike, so the queue is in the order of time.
    pub(super) fn notify(&mut self) {
        while let Some((due, w)) = self.notices.front().copied()
            && due <= self.now
        {
            self.notices.pop_front();
            let Some(watcher) = self.watchers.get_mut(w) else {
                continue;
            };
            self.notices
                .push_back((self.now + self.settings.progress_interval, w));
            let quiet = !std::mem::replace(&mut watcher.recent, false);
            let (stream, id) = (watcher.stream, watcher.id);
            if quiet && let Some(revision) = self.progress_of(w) {
                let notice = Response {
                    watch_id: id,
                    header: self.header(revision),
                    ..Response::default()
                };
                self.send(stream, &notice);
            }
        }
    }

    /// The revision up to which a c-watcher was sent all, if etcd would say so: not while it
    /// catches up, waits for its start, or has no room.
    fn progress_of(&self, w: Key) -> Option<i64> {
        let (source, _) = self.source_of(w)?;
        let watcher = self.watchers.get(w)?;
        let room = self.streams.get(watcher.stream)?.room > 0;
        let there =
            watcher.standing == WatcherState::Following && watcher.next <= source.frontier + 1;
        (room && there && source.is_home()).then_some(source.frontier)
    }
}
