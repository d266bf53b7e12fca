//! Requests of a stream, processed in order.
//!
//! etcd's clients match `created` responses to their requests by order (W6).
//! The permission check and the home of a create are requested when the create arrives, independent
//! of the requests before it.

use bytes::Bytes;

use super::Hub;
use super::api::{Action, CheckId, CheckResult, Create, IdentityId, StreamId};
use super::slab::Key;
use super::types::{PendingCreate, Request, WatchStream, Watcher, WatcherState, range_bytes};
use crate::limits;
use crate::wire::range::KeyRange;
use crate::wire::watch::Response;
use crate::wire::watch::response::EventFilter;

/// etcd's text for a negative start revision.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
/// etcd's text for a range that contains no key.
const EMPTY: &str = "mvcc: watcher range is empty";
/// etcd's text for an id that is taken.
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// Text of this proxy: etcd has no such limit.
const TOO_MANY: &str = "etcd-edge: too many watches";

/// Decision about a create at its turn.
enum CreateDecision {
    Wait,
    Refuse(String),
    Compacted(i64),
    Admit(Key),
}

impl Hub {
    pub(super) fn queue_create(&mut self, key: Key, create: Create) {
        let start = match &create.key[..] {
            // etcd reads an empty key as `\0`.
            [] => Bytes::from_static(&[0]),
            // A copy: the received key is part of a larger buffer, and a watcher may live long.
            key => Bytes::copy_from_slice(key),
        };
        let range = KeyRange::of(start, Bytes::copy_from_slice(&create.range_end));
        let Some(stream) = self.streams.get(key) else {
            return;
        };
        let identity = stream.identity;
        let check = CheckId {
            stream: StreamId(key),
            request: stream.first_request + stream.requests.len() as u64,
        };
        let mut home = None;
        if create.start_revision >= 0 {
            self.actions.push(Action::Check {
                check,
                stream: StreamId(key),
                range: range.clone(),
            });
            if !range.is_empty() {
                home = Some(self.hold_home(check, identity, &range, create.prev_kv));
            }
        }
        let create = Create {
            key: Bytes::new(),
            range_end: Bytes::new(),
            ..create
        };
        let pending = PendingCreate {
            create,
            range,
            check_result: None,
            home,
            compacted: None,
            refused: None,
        };
        self.queue_request(key, Request::Create(Box::new(pending)));
    }

    pub(super) fn queue_request(&mut self, key: Key, request: Request) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.queued_bytes += request.bytes();
        stream.requests.push_back(request);
        self.advance(key);
    }

    pub(super) fn apply_check_result(&mut self, check: CheckId, result: CheckResult) {
        let key = check.stream.0;
        if let CheckResult::Lost(reason) = result {
            let is_pending =
                |stream: &mut WatchStream| stream.pending_create(check.request).is_some();
            if self.streams.get_mut(key).is_some_and(is_pending) {
                self.end_stream(key, reason);
            }
            return;
        }
        if let Some(stream) = self.streams.get_mut(key)
            && let Some(pending) = stream.pending_create(check.request)
        {
            pending.check_result = Some(result);
            self.advance(key);
        }
    }

    /// Processes the requests of a stream until one has to wait.
    pub(super) fn advance(&mut self, key: Key) {
        while let Some(stream) = self.streams.get(key) {
            match stream.requests.front() {
                None => break,
                Some(Request::Cancel(id)) => {
                    let id = *id;
                    self.pop_request(key);
                    self.handle_cancel(key, id);
                }
                Some(Request::Progress) => {
                    self.pop_request(key);
                    self.handle_progress(key);
                }
                Some(Request::Create(_)) => match self.decide_create(key) {
                    CreateDecision::Wait => break,
                    CreateDecision::Refuse(reason) => {
                        self.pop_request(key);
                        let refused = Response {
                            watch_id: -1,
                            created: true,
                            canceled: true,
                            cancel_reason: reason,
                            ..self.response()
                        };
                        self.send(key, &refused);
                    }
                    CreateDecision::Compacted(revision) => {
                        if let Some(pending) = self.pop_request(key) {
                            self.create_compacted(key, &pending, revision);
                        }
                    }
                    CreateDecision::Admit(home) => {
                        // `pop_request` releases the home, which must not close before the join.
                        self.hold(home);
                        if let Some(pending) = self.pop_request(key) {
                            self.start_watcher(key, &pending, home);
                        }
                        self.release(home);
                    }
                },
            }
        }
        if let Some(stream) = self.streams.get_mut(key) {
            stream.update_accepting(key, &mut self.actions);
        }
    }

    /// Decides about the create at the front of the queue, in etcd's order of checks.
    fn decide_create(&mut self, key: Key) -> CreateDecision {
        let Some(stream) = self.streams.get_mut(key) else {
            return CreateDecision::Wait;
        };
        let is_full = stream.watchers.len() + stream.compacted.len() >= limits::WATCHERS_PER_STREAM
            || stream.key_bytes >= limits::WATCH_KEY_BYTES
            || self.watchers.len() >= limits::WATCHERS_PER_WORKER;
        let (identity, number) = (stream.identity, stream.first_request);
        let is_taken = |id: i64| id != 0 && stream.has_id(id);
        let Some(Request::Create(pending)) = stream.requests.front() else {
            return CreateDecision::Wait;
        };
        if pending.create.start_revision < 0 {
            return CreateDecision::Refuse(COMPACTED.to_owned());
        }
        match &pending.check_result {
            None => return CreateDecision::Wait,
            Some(CheckResult::Refused(reason)) => return CreateDecision::Refuse(reason.clone()),
            _ => {}
        }
        if pending.range.is_empty() {
            return CreateDecision::Refuse(EMPTY.to_owned());
        }
        if is_taken(pending.create.watch_id) {
            return CreateDecision::Refuse(DUPLICATE.to_owned());
        }
        if is_full {
            return CreateDecision::Refuse(TOO_MANY.to_owned());
        }
        if let Some(reason) = &pending.refused {
            return CreateDecision::Refuse(reason.clone());
        }
        if let Some(revision) = pending.compacted {
            return CreateDecision::Compacted(revision);
        }
        let home = pending
            .home
            .and_then(|home| Some((home, self.sources.get(home)?.live)));
        match home {
            Some((home, true)) => CreateDecision::Admit(home),
            Some((_, false)) => CreateDecision::Wait,
            None => {
                // The home this create waited for has ended.
                let (range, prev_kv) = (pending.range.clone(), pending.create.prev_kv);
                let check = CheckId {
                    stream: StreamId(key),
                    request: number,
                };
                let home = self.hold_home(check, identity, &range, prev_kv);
                if let Some(stream) = self.streams.get_mut(key)
                    && let Some(pending) = stream.pending_create(number)
                {
                    pending.home = Some(home);
                }
                match self.sources.get(home) {
                    Some(source) if source.live => CreateDecision::Admit(home),
                    _ => CreateDecision::Wait,
                }
            }
        }
    }

    /// Holds a home for a create, and registers the create with it unless the home is live.
    fn hold_home(
        &mut self,
        check: CheckId,
        identity: IdentityId,
        range: &KeyRange,
        prev_kv: bool,
    ) -> Key {
        let home = self.home(identity, range, prev_kv);
        self.hold(home);
        if let Some(source) = self.sources.get_mut(home)
            && !source.live
        {
            source.waiting_creates.push(check);
        }
        home
    }

    /// Removes the first request and releases its home. Returns the create, if it is one.
    fn pop_request(&mut self, key: Key) -> Option<Box<PendingCreate>> {
        let stream = self.streams.get_mut(key)?;
        let request = stream.requests.pop_front()?;
        stream.first_request += 1;
        stream.queued_bytes -= request.bytes();
        let Request::Create(mut pending) = request else {
            return None;
        };
        if let Some(home) = pending.home.take() {
            self.release(home);
        }
        Some(pending)
    }

    /// Starts a client watcher.
    fn start_watcher(&mut self, key: Key, pending: &PendingCreate, home: Key) {
        let Some(source) = self.sources.get(home) else {
            return;
        };
        let current = source.frontier.max(self.known.revision);
        let start = pending.create.start_revision;
        let next = if start == 0 {
            current.saturating_add(1)
        } else {
            start
        };
        if source.members > 0 {
            self.counts.joined += 1;
        }
        let Some(id) = self.choose_id(key, pending.create.watch_id) else {
            return;
        };
        let create = &pending.create;
        let w = self.watchers.insert(Watcher {
            stream: key,
            group: key,
            id,
            next,
            position: 0,
            state: WatcherState::NeedsCatchUp,
            fragment: create.fragment,
            progress_notify: create.progress_notify,
            sent_recently: false,
            at_start: start > 0,
            queued: false,
        });
        if let Some(stream) = self.streams.get_mut(key) {
            stream.watchers.insert(id, w);
            stream.key_bytes += range_bytes(&pending.range);
        }
        let created = Response {
            watch_id: id,
            created: true,
            header: self.header(current),
            ..Response::default()
        };
        self.send(key, &created);
        if create.progress_notify {
            self.schedule_notification(w);
        }
        let filter = EventFilter {
            range: pending.range.clone(),
            puts: !create.no_put,
            deletes: !create.no_delete,
            prev_kv: create.prev_kv,
        };
        self.attach(w, home, &filter, next);
    }

    /// Answers a create with a compacted start revision: created, then canceled.
    fn create_compacted(&mut self, key: Key, pending: &PendingCreate, revision: i64) {
        if let Some(id) = self.choose_id(key, pending.create.watch_id) {
            let created = Response {
                watch_id: id,
                created: true,
                ..self.response()
            };
            self.send(key, &created);
            self.send_compacted(key, id, revision);
        }
    }

    /// Returns the requested id. For 0, chooses the next free id, counted up from 0.
    fn choose_id(&mut self, key: Key, requested_id: i64) -> Option<i64> {
        let stream = self.streams.get_mut(key)?;
        if requested_id != 0 {
            return Some(requested_id);
        }
        while stream.has_id(stream.next_id) {
            stream.next_id += 1;
        }
        stream.next_id += 1;
        Some(stream.next_id - 1)
    }
}

impl Request {
    /// Returns the size of the client's keys in this request, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Request::Create(pending) => range_bytes(&pending.range),
            Request::Cancel(_) | Request::Progress => 0,
        }
    }
}
