//! Requests of a stream, worked off in their order: etcd's clients match `created` answers by it
//! (W6). What a request needs from elsewhere is asked for when it arrives.

use bytes::Bytes;

use super::Hub;
use super::api::{Action, CheckId, CheckResult, Create, IdentityId, StreamId};
use super::slab::Key;
use super::types::{Asked, Request, Stream, Watcher, WatcherState, range_bytes};
use crate::limits;
use crate::wire::range::KeyRange;
use crate::wire::watch::Response;
use crate::wire::watch::answer::Cut;

/// etcd's words for a negative start revision.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
/// etcd's words for a range that no key is in.
const EMPTY: &str = "mvcc: watcher range is empty";
/// etcd's words for an id that is taken.
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// Our own: etcd has no such bound.
const TOO_MANY: &str = "etcd-edge: too many watches";

/// What comes of a create at its turn.
enum Turn {
    Wait,
    Refuse(String),
    Compacted(i64),
    Admit(Key),
}

impl Hub {
    pub(super) fn create_arrived(&mut self, key: Key, create: Create) {
        let start = match &create.key[..] {
            // As etcd reads it.
            [] => Bytes::from_static(&[0]),
            // What arrived is part of a larger buffer, and this may be kept for long.
            some => Bytes::copy_from_slice(some),
        };
        let range = KeyRange::of(start, Bytes::copy_from_slice(&create.range_end));
        let Some(stream) = self.streams.get(key) else {
            return;
        };
        let identity = stream.identity;
        let check = CheckId {
            stream: StreamId(key),
            request: stream.first + stream.requests.len() as u64,
        };
        let mut home = None;
        if create.start_revision >= 0 {
            self.actions.push(Action::Check {
                check,
                stream: StreamId(key),
                range: range.clone(),
            });
            if !range.is_empty() {
                home = Some(self.ask_home(check, identity, &range, create.prev_kv));
            }
        }
        let create = Create {
            key: Bytes::new(),
            range_end: Bytes::new(),
            ..create
        };
        let asked = Asked {
            create,
            range,
            verdict: None,
            home,
            compacted: None,
            refused: None,
        };
        self.arrived(key, Request::Create(Box::new(asked)));
    }

    pub(super) fn arrived(&mut self, key: Key, request: Request) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.queued_bytes += request.bytes();
        stream.requests.push_back(request);
        self.advance(key);
    }

    pub(super) fn check_answered(&mut self, check: CheckId, verdict: CheckResult) {
        let key = check.stream.0;
        if let CheckResult::Lost(why) = verdict {
            let waits = |stream: &mut Stream| stream.asked(check.request).is_some();
            if self.streams.get_mut(key).is_some_and(waits) {
                self.end(key, why);
            }
            return;
        }
        if let Some(stream) = self.streams.get_mut(key)
            && let Some(asked) = stream.asked(check.request)
        {
            asked.verdict = Some(verdict);
            self.advance(key);
        }
    }

    /// Works requests off as far as it goes.
    pub(super) fn advance(&mut self, key: Key) {
        while let Some(stream) = self.streams.get(key) {
            match stream.requests.front() {
                None => break,
                Some(Request::Cancel(id)) => {
                    let id = *id;
                    self.pop_request(key);
                    self.cancel_now(key, id);
                }
                Some(Request::Progress) => {
                    self.pop_request(key);
                    self.ask_progress(key);
                }
                Some(Request::Create(_)) => match self.turn(key) {
                    Turn::Wait => break,
                    Turn::Refuse(reason) => {
                        self.pop_request(key);
                        let refused = Response {
                            watch_id: -1,
                            created: true,
                            canceled: true,
                            cancel_reason: reason,
                            ..self.answer()
                        };
                        self.send(key, &refused);
                    }
                    Turn::Compacted(revision) => {
                        if let Some(asked) = self.pop_request(key) {
                            self.create_compacted(key, &asked, revision);
                        }
                    }
                    Turn::Admit(home) => {
                        // Held over the pop: it must not end before it is joined.
                        self.hold(home);
                        if let Some(asked) = self.pop_request(key) {
                            self.admit(key, &asked, home);
                        }
                        self.release(home);
                    }
                },
            }
        }
        if let Some(stream) = self.streams.get_mut(key) {
            stream.look_open(key, &mut self.actions);
        }
    }

    /// Judges the create whose turn it is, in etcd's order.
    fn turn(&mut self, key: Key) -> Turn {
        let Some(stream) = self.streams.get_mut(key) else {
            return Turn::Wait;
        };
        let full = stream.watchers.len() + stream.compacted.len() >= limits::WATCHERS_PER_STREAM
            || stream.key_bytes >= limits::WATCH_KEY_BYTES
            || self.watchers.len() >= limits::WATCHERS_PER_WORKER;
        let (identity, number) = (stream.identity, stream.first);
        let taken = |id: i64| id != 0 && stream.has_id(id);
        let Some(Request::Create(asked)) = stream.requests.front() else {
            return Turn::Wait;
        };
        if asked.create.start_revision < 0 {
            return Turn::Refuse(COMPACTED.to_owned());
        }
        match &asked.verdict {
            None => return Turn::Wait,
            Some(CheckResult::Refused(reason)) => return Turn::Refuse(reason.clone()),
            _ => {}
        }
        if asked.range.is_empty() {
            return Turn::Refuse(EMPTY.to_owned());
        }
        if taken(asked.create.watch_id) {
            return Turn::Refuse(DUPLICATE.to_owned());
        }
        if full {
            return Turn::Refuse(TOO_MANY.to_owned());
        }
        if let Some(reason) = &asked.refused {
            return Turn::Refuse(reason.clone());
        }
        if let Some(revision) = asked.compacted {
            return Turn::Compacted(revision);
        }
        let home = asked
            .home
            .and_then(|home| Some((home, self.sources.get(home)?.live)));
        match home {
            Some((home, true)) => Turn::Admit(home),
            Some((_, false)) => Turn::Wait,
            None => {
                // The one it waited for is over.
                let (range, prev_kv) = (asked.range.clone(), asked.create.prev_kv);
                let check = CheckId {
                    stream: StreamId(key),
                    request: number,
                };
                let home = self.ask_home(check, identity, &range, prev_kv);
                if let Some(stream) = self.streams.get_mut(key)
                    && let Some(asked) = stream.asked(number)
                {
                    asked.home = Some(home);
                }
                match self.sources.get(home) {
                    Some(source) if source.live => Turn::Admit(home),
                    _ => Turn::Wait,
                }
            }
        }
    }

    /// Holds a home for a request, and notes that it waits unless the home is live.
    fn ask_home(
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
            source.askers.push(check);
        }
        home
    }

    /// Takes the first request off, and what it held; the create, if it is one.
    fn pop_request(&mut self, key: Key) -> Option<Box<Asked>> {
        let stream = self.streams.get_mut(key)?;
        let request = stream.requests.pop_front()?;
        stream.first += 1;
        stream.queued_bytes -= request.bytes();
        let Request::Create(mut asked) = request else {
            return None;
        };
        if let Some(home) = asked.home.take() {
            self.release(home);
        }
        Some(asked)
    }

    /// A c-watcher begins.
    fn admit(&mut self, key: Key, asked: &Asked, home: Key) {
        let Some(source) = self.sources.get(home) else {
            return;
        };
        let now_at = source.frontier.max(self.known.revision);
        let start = asked.create.start_revision;
        let next = if start == 0 {
            now_at.saturating_add(1)
        } else {
            start
        };
        if source.members > 0 {
            self.counts.joined += 1;
        }
        let Some(id) = self.choose_id(key, asked.create.watch_id) else {
            return;
        };
        let create = &asked.create;
        let w = self.watchers.insert(Watcher {
            stream: key,
            group: key,
            id,
            next,
            place: 0,
            standing: WatcherState::Adrift,
            fragment: create.fragment,
            notify: create.progress_notify,
            recent: false,
            at_start: start > 0,
            queued: false,
        });
        if let Some(stream) = self.streams.get_mut(key) {
            stream.watchers.insert(id, w);
            stream.key_bytes += range_bytes(&asked.range);
        }
        let created = Response {
            watch_id: id,
            created: true,
            header: self.header(now_at),
            ..Response::default()
        };
        self.send(key, &created);
        if create.progress_notify {
            self.notify_later(w);
        }
        let cut = Cut {
            range: asked.range.clone(),
            puts: !create.no_put,
            deletes: !create.no_delete,
            prev_kv: create.prev_kv,
        };
        self.attach(w, home, &cut, next);
    }

    /// Created and canceled at once: its start is gone.
    fn create_compacted(&mut self, key: Key, asked: &Asked, revision: i64) {
        if let Some(id) = self.choose_id(key, asked.create.watch_id) {
            let created = Response {
                watch_id: id,
                created: true,
                ..self.answer()
            };
            self.send(key, &created);
            self.send_compacted(key, id, revision);
        }
    }

    /// The id asked for, or for 0 the next that is free, counted from 0 up.
    fn choose_id(&mut self, key: Key, wanted: i64) -> Option<i64> {
        let stream = self.streams.get_mut(key)?;
        if wanted != 0 {
            return Some(wanted);
        }
        while stream.has_id(stream.next_id) {
            stream.next_id += 1;
        }
        stream.next_id += 1;
        Some(stream.next_id - 1)
    }
}

impl Request {
    /// What it keeps of the client's bytes.
    fn bytes(&self) -> usize {
        match self {
            Request::Create(asked) => range_bytes(&asked.range),
            Request::Cancel(_) | Request::Progress => 0,
        }
    }
}
