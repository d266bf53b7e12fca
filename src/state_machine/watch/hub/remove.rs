//! C-watchers and streams that end, and the answers that only one client gets.

use super::Hub;
use super::message::Message;
use super::slab::Key;
use super::types::{Barrier, Request, range_bytes};
use crate::wire::response_header::Header;
use crate::wire::watch::Response;

impl Hub {
    /// Unknown ids are not answered, as etcd does.
    pub(super) fn cancel_now(&mut self, key: Key, id: i64) {
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
            ..self.answer()
        };
        self.send(key, &canceled);
        if let Some(w) = watcher {
            self.leave(w);
        }
    }

    /// Ends a c-watcher whose history is gone.
    pub(super) fn cancel_compacted(&mut self, w: Key, revision: i64) {
        if let Some(watcher) = self.watchers.get(w) {
            let (stream, id) = (watcher.stream, watcher.id);
            self.send_compacted(stream, id, revision);
            self.leave(w);
        }
    }

    /// Ends a c-watcher that etcd refused.
    pub(super) fn cancel_refused(&mut self, w: Key, reason: &str) {
        if let Some(watcher) = self.watchers.get(w) {
            let canceled = Response {
                watch_id: watcher.id,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..self.answer()
            };
            let stream = watcher.stream;
            self.send(stream, &canceled);
            self.leave(w);
        }
    }

    /// As etcd tells it: no reason, and no revision in the header.
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

    /// The c-watcher is no more.
    fn leave(&mut self, w: Key) {
        let bytes = self
            .source_of(w)
            .map_or(0, |(_, group)| range_bytes(&group.cut.range));
        self.detach(w);
        let Some(watcher) = self.watchers.remove(w) else {
            return;
        };
        self.notices_live -= usize::from(watcher.notify);
        if let Some(stream) = self.streams.get_mut(watcher.stream) {
            stream.watchers.remove(&watcher.id);
            stream.key_bytes -= bytes;
            if stream.watchers.is_empty() {
                // Nobody is left to be told of, and etcd may never be asked.
                stream.barrier = Barrier::None;
            }
        }
    }

    /// The stream and all that is of it are no more.
    pub(super) fn remove_stream(&mut self, key: Key) {
        let Some(stream) = self.streams.remove(key) else {
            return;
        };
        for w in stream.watchers.into_values() {
            self.leave(w);
        }
        for request in stream.requests {
            if let Request::Create(asked) = request
                && let Some(home) = asked.home
            {
                self.release(home);
            }
        }
    }

    /// Sends an answer that only this stream gets, room or not: they are few and small.
    pub(super) fn send(&mut self, key: Key, response: &Response) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sent = stream.sent.max(response.header.revision);
            stream.send(key, Message::whole(response), &mut self.actions);
        }
    }

    /// An answer as of now, to be filled.
    pub(super) fn answer(&self) -> Response {
        Response {
            header: self.header(self.known.revision),
            ..Response::default()
        }
    }

    /// Who answered last, at this revision.
    pub(super) fn header(&self, revision: i64) -> Header {
        Header {
            revision,
            ..self.known
        }
    }
}
