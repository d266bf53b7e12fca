//! A simulated etcd: one history, members that lag, and a watch stream with etcd's two queues and
//! their freedom of order. The caller selects behaviour that a real etcd shows rarely.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use etcd_edge::wire::pb::etcdserverpb::{WatchRequest, watch_request::RequestUnion};
use etcd_edge::wire::range::KeyRange;
use etcd_edge::wire::response_header::Header;
use etcd_edge::wire::watch::{Event, Response};
use prost::Message;

/// Number of members of the cluster. An endpoint with a higher number belongs to another cluster.
pub(crate) const MEMBERS: usize = 3;

/// Changes of a revision: keys, and whether each was deleted.
type Change = Vec<(&'static [u8], bool)>;

/// All members and the state that they agree on.
pub(crate) struct Etcd {
    /// History of the store. Revision 1 is empty, as in a new store.
    changes: Vec<Change>,
    pub(crate) cluster_id: u64,
    pub(crate) compacted: i64,
    /// Revision that each member has applied.
    applied: [i64; MEMBERS],
}

/// A request of the trunk, and the moment it was sent.
struct SentRequest {
    request: RequestUnion,
    at: u64,
}

/// A response in flight, with the data that the trunk cannot see.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// For a progress response: the moment when its request was sent.
    pub(crate) sent_at: Option<u64>,
}

struct Watch {
    range: KeyRange,
    prev_kv: bool,
    /// First revision that has not been sent.
    next: i64,
    /// First revision of the watch. etcd returns to it if no event has matched since.
    start: i64,
    /// Start revision in the request. etcd sends no progress response below it.
    requested: i64,
    matched: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Synced,
    Unsynced,
    /// Canceled because of compaction, but still registered.
    Compacted,
}

/// One watch stream, at one member.
pub(crate) struct Stream {
    pub(crate) generation: u64,
    pub(crate) member: usize,
    requests: VecDeque<SentRequest>,
    watches: BTreeMap<i64, Watch>,
    /// All ids requested so far.
    ids: BTreeSet<i64>,
    control: VecDeque<Answer>,
    /// Fragments of one response are contiguous.
    events: VecDeque<Vec<Answer>>,
    /// Ids with a sent `created`.
    created: BTreeSet<i64>,
    /// Responses that wait for the `created` of their watch.
    early: Vec<Vec<Answer>>,
    wire: VecDeque<Answer>,
    /// Reason for refusing the next create.
    pub(crate) refuse: Option<&'static str>,
}

impl Etcd {
    pub(crate) fn new(revisions: usize) -> Etcd {
        let mut etcd = Etcd {
            changes: vec![Vec::new()],
            cluster_id: 7,
            compacted: 0,
            applied: [1; MEMBERS],
        };
        for n in 0..revisions {
            etcd.write(n as u8, n as u8);
        }
        etcd.applied = [etcd.head(); MEMBERS];
        etcd
    }

    /// Returns the last revision.
    pub(crate) fn head(&self) -> i64 {
        self.changes.len() as i64
    }

    /// Adds a revision. Each low bit of `keys` is a key that changes, each low bit of `kinds` a
    /// deletion.
    pub(crate) fn write(&mut self, keys: u8, kinds: u8) {
        let all: [&'static [u8]; 4] = [b"a", b"b", b"c", b"d"];
        let chosen = (0..4).filter(|bit| keys >> bit & 1 == 1);
        let mut change: Change = chosen
            .map(|bit| (all[bit], kinds >> bit & 1 == 1))
            .collect();
        if change.is_empty() {
            change.push((all[usize::from(keys >> 4) % 4], false));
        }
        self.changes.push(change);
    }

    /// Returns the events of a range between two revisions, both included.
    pub(crate) fn events(&self, range: &KeyRange, from: i64, to: i64, prev_kv: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for revision in from.max(1)..=to.min(self.head()) {
            for (key, delete) in &self.changes[revision as usize - 1] {
                if range.contains(key) {
                    events.push(Event {
                        encoded: Bytes::from_static(if prev_kv { b"with" } else { b"-" }),
                        key: Bytes::from_static(key),
                        revision,
                        delete: *delete,
                        prev_kv: 0..0,
                    });
                }
            }
        }
        events
    }

    /// Returns the first revision between `from` and `to`, both included, with an event in the
    /// range.
    fn first_match(&self, range: &KeyRange, from: i64, to: i64) -> Option<i64> {
        (from.max(1)..=to)
            .find(|revision| !self.events(range, *revision, *revision, false).is_empty())
    }

    pub(crate) fn compact(&mut self, revision: i64) {
        let least = self.applied.iter().copied().min().unwrap_or(0);
        self.compacted = self.compacted.max(revision.min(least));
    }

    pub(crate) fn applied(&self, member: usize) -> i64 {
        self.applied[member % MEMBERS]
    }

    /// Restores a backup: the history goes back, and the cluster gets a new id.
    pub(crate) fn restore(&mut self, revision: i64) {
        self.changes
            .truncate(revision.clamp(1, self.head()) as usize);
        self.cluster_id += 1;
        self.compacted = self.compacted.min(self.head());
        self.applied = [self.head(); MEMBERS];
    }

    /// Applies the next revision at a member. Its stream gets the events, unless its queue is
    /// `full`.
    pub(crate) fn apply(&mut self, member: usize, stream: Option<&mut Stream>, full: bool) {
        if self.applied(member) >= self.head() {
            return;
        }
        let at = member % MEMBERS;
        self.applied[at] += 1;
        let revision = self.applied[at];
        let Some(stream) = stream.filter(|stream| stream.member % MEMBERS == at) else {
            return;
        };
        let header = self.header(stream.member, revision);
        let mut sent = Vec::new();
        for (id, watch) in &mut stream.watches {
            if watch.state != State::Synced || watch.next > revision {
                continue;
            }
            let events = self.events(&watch.range, revision, revision, watch.prev_kv);
            if events.is_empty() {
                continue;
            }
            if full {
                watch.next = revision;
                watch.state = State::Unsynced;
                continue;
            }
            watch.matched = true;
            watch.next = revision + 1;
            sent.push(vec![Answer::of(Response {
                header,
                watch_id: *id,
                events,
                ..Response::default()
            })]);
        }
        stream.events.extend(sent);
    }

    /// Delivers up to `limit` matching revisions to each unsynced watch of a member. A large
    /// response is fragmented where `cuts` has a bit.
    pub(crate) fn catch_up(&self, stream: &mut Stream, limit: usize, cuts: u8) {
        let current = self.applied(stream.member);
        let header = self.header(stream.member, current);
        let mut sent = Vec::new();
        for (id, watch) in &mut stream.watches {
            if watch.state != State::Unsynced {
                continue;
            }
            if watch.next < self.compacted {
                watch.state = State::Compacted;
                sent.push(vec![Answer::of(Response {
                    header: Header {
                        revision: 0,
                        ..header
                    },
                    watch_id: *id,
                    canceled: true,
                    compact_revision: self.compacted,
                    ..Response::default()
                })]);
                continue;
            }
            let mut events = Vec::new();
            for _ in 0..limit {
                let Some(revision) = self.first_match(&watch.range, watch.next, current) else {
                    break;
                };
                events.extend(self.events(&watch.range, revision, revision, watch.prev_kv));
                watch.next = revision + 1;
                watch.matched = true;
            }
            if self
                .first_match(&watch.range, watch.next, current)
                .is_none()
            {
                watch.state = State::Synced;
                watch.next = watch.next.max(current + 1);
            }
            if !events.is_empty() {
                sent.push(fragments(header, *id, events, cuts));
            }
        }
        stream.events.extend(sent);
    }

    /// Handles the next request at a member. `gap` revisions are applied between the registration
    /// of a watch and the lookup of the store's revision. With `old`, a start in the future
    /// delivers old events.
    pub(crate) fn serve(&mut self, stream: &mut Stream, gap: u8, old: bool) {
        let Some(sent) = stream.requests.pop_front() else {
            return;
        };
        let member = stream.member;
        let current = self.applied(member);
        match sent.request {
            RequestUnion::CreateRequest(create) => {
                let id = create.watch_id;
                assert!(create.fragment && id > 0 && create.start_revision >= 0);
                assert!(stream.ids.insert(id), "id {id} is used twice on a stream");
                if let Some(reason) = stream.refuse.take() {
                    stream.control.push_back(Answer::of(Response {
                        header: self.header(member, current),
                        watch_id: -1,
                        created: true,
                        canceled: true,
                        cancel_reason: reason.to_owned(),
                        ..Response::default()
                    }));
                    return;
                }
                let range = KeyRange::of(create.key, create.range_end);
                let start = create.start_revision;
                let ahead = start == 0 || start > current;
                let next = if start == 0 { current + 1 } else { start };
                if old && start > current {
                    let events = self.events(&range, start - 3, current, create.prev_kv);
                    if !events.is_empty() {
                        stream.events.push_back(fragments(
                            self.header(member, current),
                            id,
                            events,
                            0,
                        ));
                    }
                }
                let watch = Watch {
                    range,
                    prev_kv: create.prev_kv,
                    next,
                    start: next,
                    requested: start,
                    matched: false,
                    state: if ahead {
                        State::Synced
                    } else {
                        State::Unsynced
                    },
                };
                stream.watches.insert(id, watch);
                for _ in 0..gap {
                    self.apply(member, Some(stream), false);
                }
                stream.control.push_back(Answer::of(Response {
                    header: self.header(member, self.applied(member)),
                    watch_id: id,
                    created: true,
                    ..Response::default()
                }));
            }
            RequestUnion::CancelRequest(cancel) => {
                if stream.watches.remove(&cancel.watch_id).is_some() {
                    stream.control.push_back(Answer::of(Response {
                        header: self.header(member, current),
                        watch_id: cancel.watch_id,
                        canceled: true,
                        ..Response::default()
                    }));
                }
            }
            RequestUnion::ProgressRequest(_) => {
                let mut watches = stream.watches.values();
                let synced =
                    watches.all(|watch| watch.state == State::Synced && watch.requested <= current);
                if synced && !stream.watches.is_empty() {
                    stream.events.push_back(vec![Answer {
                        response: Response {
                            header: self.header(member, current),
                            watch_id: -1,
                            ..Response::default()
                        },
                        sent_at: Some(sent.at),
                    }]);
                }
            }
        }
    }

    /// Sends etcd's own progress notifications to synced watches.
    pub(crate) fn notify(&self, stream: &mut Stream) {
        let current = self.applied(stream.member);
        let header = self.header(stream.member, current);
        let due = stream
            .watches
            .iter()
            .filter(|(_, watch)| watch.state == State::Synced && watch.requested <= current);
        let sent: Vec<Vec<Answer>> = due
            .map(|(id, _)| {
                vec![Answer::of(Response {
                    header,
                    watch_id: *id,
                    ..Response::default()
                })]
            })
            .collect();
        stream.events.extend(sent);
    }

    /// Installs a snapshot on the member: its watches become unsynced without a notification.
    pub(crate) fn snapshot(&self, stream: &mut Stream) {
        for watch in stream.watches.values_mut() {
            if watch.state == State::Synced && watch.start <= self.applied(stream.member) {
                watch.state = State::Unsynced;
                if !watch.matched {
                    watch.next = watch.start;
                }
            }
        }
    }

    pub(crate) fn header(&self, member: usize, revision: i64) -> Header {
        Header {
            cluster_id: if member < MEMBERS {
                self.cluster_id
            } else {
                999
            },
            member_id: member as u64 + 1,
            revision,
            raft_term: 2,
        }
    }
}

/// Returns one response, or its fragments.
fn fragments(header: Header, id: i64, events: Vec<Event>, cuts: u8) -> Vec<Answer> {
    let mut parts = vec![Vec::new()];
    for (n, event) in events.into_iter().enumerate() {
        if n > 0 && cuts >> (n % 8) & 1 == 1 {
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    let last = parts.len() - 1;
    let answers = parts.into_iter().enumerate().map(|(n, events)| {
        Answer::of(Response {
            header,
            watch_id: id,
            fragment: n < last,
            events,
            ..Response::default()
        })
    });
    answers.collect()
}

impl Answer {
    fn of(response: Response) -> Answer {
        Answer {
            response,
            sent_at: None,
        }
    }
}

impl Stream {
    pub(crate) fn new(generation: u64, member: usize) -> Stream {
        Stream {
            generation,
            member,
            requests: VecDeque::new(),
            watches: BTreeMap::new(),
            ids: BTreeSet::new(),
            control: VecDeque::new(),
            events: VecDeque::new(),
            created: BTreeSet::new(),
            early: Vec::new(),
            wire: VecDeque::new(),
            refuse: None,
        }
    }

    /// Receives a message of the trunk, sent at this moment. Returns whether it requests progress.
    pub(crate) fn send(&mut self, message: &[u8], at: u64) -> bool {
        let len = u32::from_be_bytes(message[1..5].try_into().unwrap());
        assert_eq!((message[0], len as usize), (0, message.len() - 5));
        let request = WatchRequest::decode(&message[5..]).unwrap();
        let request = request.request_union.expect("a request has content");
        let progress = matches!(request, RequestUnion::ProgressRequest(_));
        self.requests.push_back(SentRequest { request, at });
        progress
    }

    /// Sends from one of the queues. A response before the `created` of its watch waits for it.
    pub(crate) fn flow(&mut self, control: bool) {
        let from_control = !self.control.is_empty() && (control || self.events.is_empty());
        if from_control {
            let Some(answer) = self.control.pop_front() else {
                return;
            };
            let (id, created) = (answer.response.watch_id, answer.response.created);
            self.wire.push_back(answer);
            if created {
                self.created.insert(id);
                let mut early = std::mem::take(&mut self.early);
                early.retain(|answers| {
                    let ready = answers[0].response.watch_id == id;
                    if ready {
                        self.wire.extend(answers.iter().cloned());
                    }
                    !ready
                });
                self.early = early;
            }
        } else if let Some(mut answers) = self.events.pop_front() {
            let id = answers[0].response.watch_id;
            if id == -1 || self.created.contains(&id) {
                // etcd never sends a response for the whole stream between fragments. It would be
                // harmless.
                let next = self.events.front();
                if control && next.is_some_and(|next| next[0].response.watch_id == -1) {
                    self.wire.push_back(answers.remove(0));
                    self.wire
                        .extend(self.events.pop_front().into_iter().flatten());
                }
                self.wire.extend(answers);
            } else {
                self.early.push(answers);
            }
        }
    }

    /// Returns the next response that the trunk reads.
    pub(crate) fn read(&mut self) -> Option<Answer> {
        self.wire.pop_front()
    }

    /// Makes a response that etcd never sends the next one.
    pub(crate) fn inject(&mut self, response: Response) {
        self.wire.push_front(Answer::of(response));
    }

    /// Reports whether nothing is in flight in either direction.
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.is_empty()
            && self.control.is_empty()
            && self.events.is_empty()
            && self.wire.is_empty()
    }

    /// Returns the registered watches, by range and kind.
    pub(crate) fn registered(&self) -> Vec<(KeyRange, bool)> {
        let watches = self.watches.values();
        watches
            .map(|watch| (watch.range.clone(), watch.prev_kv))
            .collect()
    }

    /// Returns the watch with an id.
    pub(crate) fn watch(&self, id: i64) -> Option<(KeyRange, bool)> {
        let watch = self.watches.get(&id)?;
        Some((watch.range.clone(), watch.prev_kv))
    }

    /// Returns a registered id.
    pub(crate) fn any_id(&self) -> Option<i64> {
        self.watches.keys().next().copied()
    }
}
