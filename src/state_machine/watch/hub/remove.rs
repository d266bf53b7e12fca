//! End of client watchers and streams, and responses for a single stream.

use super::Hub;
use super::message::Message;
use super::slab::Key;
use super::types::{BarrierState, Request, range_bytes};
use crate::wire::response_header::Header;
use crate::wire::watch::Response;

impl Hub {
    /// Handles a cancel request at its turn. An unknown id receives no response, as at etcd.
    pub(super) fn handle_cancel(&mut self, key: Key, id: i64) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let watcher = stream.watchers.get(&id).copied();
        if watcher.is_none() && !stream.compacted.remove(&id) {
            return;
        }
        let canceled = Response {
            watch_id: id,
            canceled: true,
            ..self.response()
        };
        self.send(key, &canceled);
        if let Some(w) = watcher {
            self.remove_watcher(w);
        }
    }

    /// Cancels a client watcher because a compaction removed events it needs.
    pub(super) fn cancel_compacted(&mut self, w: Key, revision: i64) {
        if let Some(watcher) = self.watchers.get(w) {
            let (stream, id) = (watcher.stream, watcher.id);
            self.send_compacted(stream, id, revision);
            self.remove_watcher(w);
        }
    }

    /// Cancels a client watcher that etcd refused.
    pub(super) fn cancel_refused(&mut self, w: Key, reason: &str) {
        if let Some(watcher) = self.watchers.get(w) {
            let canceled = Response {
                watch_id: watcher.id,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..self.response()
            };
            let stream = watcher.stream;
            self.send(stream, &canceled);
            self.remove_watcher(w);
        }
    }

    /// Sends a cancel for compaction in etcd's form: no reason, and no revision in the header.
    pub(super) fn send_compacted(&mut self, key: Key, id: i64, revision: i64) {
        let canceled = Response {
            watch_id: id,
            canceled: true,
            compact_revision: revision,
            header: self.header(0),
            ..Response::default()
        };
        self.send(key, &canceled);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.compacted.insert(id);
        }
    }

    /// Removes a client watcher.
    fn remove_watcher(&mut self, w: Key) {
        let bytes = self
            .source_of(w)
            .map_or(0, |(_, group)| range_bytes(&group.filter.range));
        self.detach(w);
        let Some(watcher) = self.watchers.remove(w) else {
            return;
        };
        self.notification_watchers -= usize::from(watcher.progress_notify);
        if let Some(stream) = self.streams.get_mut(watcher.stream) {
            stream.watchers.remove(&watcher.id);
            stream.key_bytes -= bytes;
            if stream.watchers.is_empty() {
                // No client watcher needs a response, and the barrier may never be requested.
                stream.barrier = BarrierState::None;
            }
        }
    }

    /// Removes a stream with its client watchers and requests.
    pub(super) fn remove_stream(&mut self, key: Key) {
        let Some(stream) = self.streams.remove(key) else {
            return;
        };
        for w in stream.watchers.into_values() {
            self.remove_watcher(w);
        }
        for request in stream.requests {
            if let Request::Create(pending) = request
                && let Some(home) = pending.home
            {
                self.release(home);
            }
        }
    }

    /// Sends a response for a single stream, even without send capacity: these responses are few
    /// and small.
    pub(super) fn send(&mut self, key: Key, response: &Response) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sent_revision = stream.sent_revision.max(response.header.revision);
            stream.send(key, Message::whole(response), &mut self.actions);
        }
    }

    /// Returns an empty response at the known revision.
    pub(super) fn response(&self) -> Response {
        Response {
            header: self.header(self.known.revision),
            ..Response::default()
        }
    }

    /// Returns the last header seen, with this revision.
    pub(super) fn header(&self, revision: i64) -> Header {
        Header {
            revision,
            ..self.known
        }
    }
}
