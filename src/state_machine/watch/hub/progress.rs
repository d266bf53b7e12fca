//! Progress: barriers for clients' progress requests (W8), and regular notifications (W7).

use super::Hub;
use super::api::{Action, StreamId};
use super::slab::Key;
use super::types::{BarrierState, WatcherState};
use crate::limits;
use crate::wire::watch::Response;

impl Hub {
    /// Handles a progress request at its turn. A stream without a client watcher receives no
    /// response, as at etcd.
    pub(super) fn handle_progress(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        match &mut stream.barrier {
            BarrierState::None if stream.watchers.is_empty() => {}
            BarrierState::None => self.request_barrier(key),
            BarrierState::Requested { repeat } => *repeat = true,
            // The next barrier is requested after this progress request, so it answers both.
            BarrierState::Paused(_) => {}
        }
    }

    fn request_barrier(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.barrier = BarrierState::Requested { repeat: false };
            self.actions.push(Action::RequestBarrier {
                stream: StreamId(key),
                identity: stream.identity,
            });
        }
    }

    /// Handles the response to a barrier. The client receives it only if every client watcher of
    /// the stream was sent all events up to `revision`, and no header above it was sent.
    pub(super) fn barrier_response(&mut self, key: Key, revision: i64) {
        self.update_known_revision(revision);
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let BarrierState::Requested { repeat } = stream.barrier else {
            return;
        };
        stream.barrier = BarrierState::None;
        let (mut all_sent, mut starts_later) = (revision >= stream.sent_revision, false);
        for w in stream.watchers.values() {
            let Some(watcher) = self.watchers.get(*w) else {
                continue;
            };
            let group = self.groups.get(watcher.group);
            let frontier = group
                .and_then(|group| self.sources.get(group.source))
                .map(|s| s.frontier);
            all_sent &= frontier.is_some_and(|frontier| watcher.next(frontier) > revision);
            // Revision 0 proves nothing: no endpoint was queried.
            starts_later |= revision > 0 && watcher.at_start && watcher.next > revision;
        }
        if starts_later || stream.watchers.is_empty() {
            // No response, as at etcd.
        } else if all_sent {
            let response = Response {
                watch_id: -1,
                header: self.header(revision),
                ..Response::default()
            };
            self.send(key, &response);
            if repeat {
                self.request_barrier(key);
            }
        } else {
            let due = self.now + limits::WATCH_BARRIER_PAUSE;
            stream.barrier = BarrierState::Paused(due);
            self.barriers.push_back((due, key));
        }
    }

    /// Requests barriers again after their pause.
    pub(super) fn retry_barriers(&mut self) {
        while let Some((due, key)) = self.barriers.front().copied()
            && due <= self.now
        {
            self.barriers.pop_front();
            if let Some(stream) = self.streams.get(key)
                && stream.barrier == BarrierState::Paused(due)
            {
                self.request_barrier(key);
            }
        }
    }

    /// Schedules the first notification of a client watcher, one interval from now.
    pub(super) fn schedule_notification(&mut self, w: Key) {
        self.notification_watchers += 1;
        self.notifications
            .push_back((self.now + self.settings.progress_interval, w));
        if self.notifications.len() > 2 * self.notification_watchers + 64 {
            let watchers = &self.watchers;
            self.notifications
                .retain(|(_, w)| watchers.get(*w).is_some());
        }
    }

    /// Sends a progress notification to client watchers that were sent nothing for an interval. All
    /// intervals are equal, so the queue is ordered by time.
    pub(super) fn send_notifications(&mut self) {
        while let Some((due, w)) = self.notifications.front().copied()
            && due <= self.now
        {
            self.notifications.pop_front();
            let Some(watcher) = self.watchers.get_mut(w) else {
                continue;
            };
            self.notifications
                .push_back((self.now + self.settings.progress_interval, w));
            let silent = !std::mem::replace(&mut watcher.sent_recently, false);
            let (stream, id) = (watcher.stream, watcher.id);
            if silent && let Some(revision) = self.notification_revision(w) {
                let notification = Response {
                    watch_id: id,
                    header: self.header(revision),
                    ..Response::default()
                };
                self.send(stream, &notification);
            }
        }
    }

    /// Returns the revision of a progress notification, if etcd would send one now. etcd sends none
    /// while the client watcher catches up, has not reached its start, or has no send capacity.
    fn notification_revision(&self, w: Key) -> Option<i64> {
        let (source, _) = self.source_of(w)?;
        let watcher = self.watchers.get(w)?;
        let has_capacity = self.streams.get(watcher.stream)?.capacity > 0;
        let follows =
            watcher.state == WatcherState::Following && watcher.next <= source.frontier + 1;
        (has_capacity && follows && source.is_home()).then_some(source.frontier)
    }
}
