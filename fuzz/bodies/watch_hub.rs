//! Fuzz body for the watch hub, next to a naive model: one private watcher per client over a list
//! of revisions.
//!
//! A [`World`] is a store, the feeds that a hub has opened on it, and the clients of the hub. Feeds
//! deliver the truth of the store, early or late, and in any order among each other. Each message
//! to a client is compared with the next message of a private watcher. One list of [`Op`]s drives
//! the hub here, in the property test and in the simulation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::state_machine::watch::hub::{
    Action, CheckId, CheckResult, Create, FeedId, Hub, IdentityId, Message, Settings, StreamId,
};
use etcd_edge::state_machine::watch::{Batch, FeedEvent, Unavailable};
use etcd_edge::wire::frame::HEAD_LEN;
use etcd_edge::wire::pb::{etcdserverpb as pb, mvccpb};
use etcd_edge::wire::range::KeyRange;
use etcd_edge::wire::response_header::Header;
use etcd_edge::wire::watch::{Event, Response};
use prost::Message as _;

/// One operation. A number selects an existing item, by its remainder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// A client opens a stream with a send capacity in bytes.
    Open { identity: u8, capacity: usize },
    /// A client closes its stream.
    Close(usize),
    /// A client creates a watch.
    Create { stream: usize, spec: WatchSpec },
    /// A client cancels one of its ids, or an unknown id.
    Cancel { stream: usize, id: u8 },
    /// A client requests progress.
    Progress(usize),
    /// The send capacity of a client's stream grows by `bytes`.
    Capacity { stream: usize, bytes: usize },
    /// Keys are put, or deleted, in one revision.
    Write {
        key: usize,
        count: u8,
        delete: bool,
        size: usize,
    },
    /// The store is compacted, except for the given number of revisions.
    Compact(u8),
    /// The hub learns a revision, the given number of revisions in the past, from another response.
    Known(u8),
    /// A permission check completes.
    Check { n: usize, verdict: u8 },
    /// A feed makes progress: it becomes live, or delivers the next `take` revisions. The endpoint
    /// lags `lag` revisions.
    Feed { n: usize, take: u8, lag: u8 },
    /// The frontier of a feed moves up to its next event.
    Through { n: usize, lag: u8 },
    /// A feed learns that it was compacted, if it was.
    Compacted(usize),
    /// A feed is refused.
    Refuse(usize),
    /// No token works for the upstream watcher of a feed.
    RefuseToken(usize),
    /// A feed is lost.
    Lost(usize),
    /// The response to a barrier arrives.
    Sync { n: usize, lag: u8 },
    /// Time passes, in milliseconds.
    Tick(u16),
    /// The size limit of the logs changes, in bytes.
    LogLimit(usize),
    /// The store is restored from a backup, the given number of revisions old.
    Reset(u8),
}

/// The watch that a client creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchSpec {
    pub(crate) key: usize,
    /// Kind of range end, for [`World::range`].
    pub(crate) end: u8,
    pub(crate) start: Start,
    pub(crate) id: i64,
    /// Bits: prev_kv, progress_notify, fragment, NOPUT, NODELETE.
    pub(crate) flags: u8,
}

/// Start revision of a watch, relative to the store's revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    Back(u8),
    Ahead(u8),
    Negative,
    Never,
}

impl Op {
    /// Encoded length in bytes.
    pub(crate) const LEN: usize = 8;

    pub(crate) fn of(bytes: &[u8; Op::LEN]) -> Op {
        let [code, a, b, c, d, e, f, g] = *bytes;
        let (n, m) = (usize::from(a), usize::from(b));
        match code % 64 {
            0..3 => Op::Open {
                identity: a % 3 / 2,
                capacity: [0, 40, 300, 100_000][m % 4],
            },
            3 => Op::Close(n),
            4..14 => Op::Create {
                stream: n,
                spec: WatchSpec {
                    key: m,
                    end: c,
                    start: match d % 16 {
                        0..6 => Start::Now,
                        6..13 => Start::Back(e),
                        13 => Start::Ahead(e % 8),
                        14 if e % 2 == 0 => Start::Negative,
                        14 => Start::Never,
                        _ => Start::Back(1),
                    },
                    id: [0, 0, 0, 0, 1, 2, 7, -5][usize::from(f % 8)],
                    flags: g,
                },
            },
            14..16 => Op::Cancel { stream: n, id: b },
            16..18 => Op::Progress(n),
            18..23 => Op::Capacity {
                stream: n,
                bytes: m * 8,
            },
            23..34 => Op::Write {
                key: n,
                count: b % 4,
                delete: c % 4 == 0,
                size: [1, 20, 200][usize::from(d % 3)],
            },
            34 => Op::Compact(a % 16),
            35..37 => Op::Known(a % 4),
            37..41 => Op::Check { n, verdict: b },
            41..55 => Op::Feed {
                n,
                take: b % 8,
                lag: c % 8 / 2,
            },
            55..57 => Op::Through { n, lag: b % 4 },
            57 => Op::Compacted(n),
            58 => {
                let ops = [
                    Op::Refuse(m),
                    Op::Lost(m),
                    Op::Tick(900),
                    Op::RefuseToken(m),
                ];
                ops[n % ops.len()].clone()
            }
            59..61 => Op::Sync { n, lag: b % 4 },
            61 => Op::Tick(u16::from(a) * 64),
            62 => Op::LogLimit([300, 3_000, 1 << 20][n % 3]),
            _ if a % 8 == 0 => Op::Reset(b % 8),
            _ => Op::Tick(u16::from(a)),
        }
    }
}

/// Decodes every eight bytes as an operation and runs them.
pub(crate) fn run(data: &[u8]) {
    let ops: Vec<Op> = data.as_chunks().0.iter().map(Op::of).collect();
    check(&ops);
}

/// Runs the operations, checks the whole state after each, and finishes.
pub(crate) fn check(ops: &[Op]) {
    let mut world = World::new(Scale::default());
    for op in ops {
        world.step(op);
        world.verify();
    }
    world.finish();
}

/// Size of a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) keys: usize,
    pub(crate) streams: usize,
    pub(crate) settings: Settings,
}

impl Default for Scale {
    fn default() -> Scale {
        Scale {
            keys: 6,
            streams: 8,
            settings: Settings {
                log_bytes: 3_000,
                progress_interval: Duration::from_secs(5),
                fragment_bytes: 300,
                catch_ups: 3,
            },
        }
    }
}

/// One event of the store.
#[derive(Debug, Clone)]
struct Fact {
    revision: i64,
    key: Bytes,
    delete: bool,
    encoded: mvccpb::Event,
}

/// A feed the hub has opened.
#[derive(Debug)]
struct Feed {
    id: FeedId,
    identity: IdentityId,
    range: KeyRange,
    prev_kv: bool,
    start: Option<i64>,
    live: bool,
    paused: bool,
    /// Revision up to which all events have been delivered.
    through: i64,
}

/// A request of a client that has no response yet.
#[derive(Debug)]
enum Pending {
    Create(Expect),
    Cancel(i64),
    Progress,
}

#[derive(Debug)]
struct Expect {
    range: KeyRange,
    start: i64,
    id: i64,
    flags: u8,
    /// Revision known to the hub when the request arrived.
    known: i64,
    check: Option<CheckId>,
    /// Set if the store was restored after the request: the start revision belongs to the old
    /// history.
    gone: Option<i64>,
    verdict: Option<CheckResult>,
    /// Ranges of the feeds refused since the request.
    refusals: Vec<KeyRange>,
    /// A token was refused after the check of this create granted it.
    token_refused: bool,
}

/// A client watcher, as a private one would be.
#[derive(Debug)]
struct Private {
    range: KeyRange,
    flags: u8,
    /// First revision that the watcher may deliver.
    from: i64,
    /// The client requested a start revision.
    explicit_start: bool,
    gone: Option<i64>,
    /// Index of the next event in the store's list.
    at: usize,
    /// Last revision delivered.
    delivered: i64,
}

#[derive(Debug)]
struct Client {
    id: StreamId,
    pending: VecDeque<Pending>,
    watchers: BTreeMap<i64, Private>,
    /// Ids canceled by compaction. They stay in use until the client cancels them too.
    compacted: BTreeSet<i64>,
    /// Number of progress requests without a response.
    progress: usize,
    /// Highest revision in any header sent.
    sent: i64,
    /// Watch with an incomplete fragmented response.
    fragments_of: Option<i64>,
}

/// A store, feeds, clients, and the hub between them.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) hub: Hub,
    scale: Scale,
    now: Instant,
    facts: Vec<Fact>,
    revision: i64,
    compacted: i64,
    /// Highest revision reported to the hub through `known`.
    known: i64,
    values: BTreeMap<usize, mvccpb::KeyValue>,
    feeds: Vec<Feed>,
    clients: Vec<Client>,
    checks: Vec<(CheckId, StreamId)>,
    syncs: Vec<(StreamId, IdentityId)>,
    /// Feed ids used so far.
    names: BTreeSet<FeedId>,
    log_limit: usize,
    pub(crate) delivered: usize,
    pub(crate) barriers: usize,
}

impl World {
    pub(crate) fn new(scale: Scale) -> World {
        let now = Instant::now();
        let mut hub = Hub::new(scale.settings, now);
        hub.observe_header(header(1));
        World {
            hub,
            scale,
            now,
            facts: Vec::new(),
            revision: 1,
            compacted: 0,
            known: 1,
            values: BTreeMap::new(),
            feeds: Vec::new(),
            clients: Vec::new(),
            checks: Vec::new(),
            syncs: Vec::new(),
            names: BTreeSet::new(),
            log_limit: scale.settings.log_bytes,
            delivered: 0,
            barriers: 0,
        }
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::Open { identity, capacity } if self.clients.len() < self.scale.streams => {
                let identity = IdentityId(u64::from(*identity));
                let id = self.hub.stream_opened(identity, *capacity);
                self.clients.push(Client {
                    id,
                    pending: VecDeque::new(),
                    watchers: BTreeMap::new(),
                    compacted: BTreeSet::new(),
                    progress: 0,
                    sent: 0,
                    fragments_of: None,
                });
            }
            Op::Close(n) if !self.clients.is_empty() => {
                let client = self.clients.swap_remove(n % self.clients.len());
                self.hub.stream_closed(client.id);
                self.forget(client.id);
            }
            Op::Create { stream, spec } if !self.clients.is_empty() => {
                self.create(stream % self.clients.len(), spec);
            }
            Op::Cancel { stream, id } if !self.clients.is_empty() => {
                let at = stream % self.clients.len();
                let client = &mut self.clients[at];
                let ids: Vec<i64> = client
                    .watchers
                    .keys()
                    .chain(&client.compacted)
                    .copied()
                    .collect();
                let known = ids.get(usize::from(*id) % ids.len().max(1));
                let id = known
                    .filter(|_| id % 5 != 0)
                    .copied()
                    .unwrap_or(i64::from(*id));
                client.pending.push_back(Pending::Cancel(id));
                self.hub.cancel(client.id, id);
            }
            Op::Progress(n) if !self.clients.is_empty() => {
                let at = n % self.clients.len();
                let client = &mut self.clients[at];
                client.pending.push_back(Pending::Progress);
                client.progress += 1;
                self.hub.progress(client.id);
            }
            Op::Capacity { stream, bytes } if !self.clients.is_empty() => {
                let at = stream % self.clients.len();
                self.hub.add_capacity(self.clients[at].id, *bytes);
            }
            Op::Write {
                key,
                count,
                delete,
                size,
            } => self.write(*key, *count, *delete, *size),
            Op::Compact(keep) => {
                self.compacted = self.compacted.max(self.revision - i64::from(*keep)).max(0);
            }
            Op::Known(back) => {
                let revision = (self.revision - i64::from(*back)).max(1);
                self.known = self.known.max(revision);
                self.hub.observe_header(header(revision));
            }
            Op::Check { n, verdict } if !self.checks.is_empty() => {
                let n = n % self.checks.len();
                let verdict = match verdict % 32 {
                    0 => CheckResult::Refused("rpc error: no".to_owned()),
                    1 => CheckResult::Lost(Unavailable::Unavailable),
                    _ => CheckResult::Granted,
                };
                self.answer_check(n, verdict);
            }
            Op::Feed { n, take, lag } if !self.feeds.is_empty() => {
                let n = n % self.feeds.len();
                self.feed(n, usize::from(*take) + 1, i64::from(*lag));
            }
            Op::Through { n, lag } if !self.feeds.is_empty() => {
                let n = n % self.feeds.len();
                self.through(n, i64::from(*lag));
            }
            Op::Compacted(n) if !self.feeds.is_empty() => {
                let n = n % self.feeds.len();
                if self.feeds[n].live && self.feeds[n].through < self.compacted - 1 {
                    self.deliver_compacted(n);
                }
            }
            Op::Refuse(n) if !self.feeds.is_empty() => {
                let feed = self.feeds.swap_remove(n % self.feeds.len());
                for client in &mut self.clients {
                    for pending in &mut client.pending {
                        if let Pending::Create(expect) = pending {
                            expect.refusals.push(feed.range.clone());
                        }
                    }
                }
                self.hub
                    .feed_event(feed.id, FeedEvent::Refused(REFUSED.to_owned()));
                self.take_actions(&Cause::Refused(feed.range));
                return;
            }
            Op::RefuseToken(n) if !self.feeds.is_empty() => {
                let feed = &self.feeds[n % self.feeds.len()];
                if feed.live {
                    return;
                }
                for client in &mut self.clients {
                    for pending in &mut client.pending {
                        if let Pending::Create(expect) = pending {
                            expect.token_refused |= expect.verdict == Some(CheckResult::Granted);
                        }
                    }
                }
                let clients = self.clients.len();
                self.hub
                    .feed_event(feed.id, FeedEvent::TokenRefused(TOKEN_REFUSED.to_owned()));
                self.take_actions(&Cause::Other);
                assert_eq!(self.clients.len(), clients, "a refused token ends a stream");
                return;
            }
            Op::Lost(n) if !self.feeds.is_empty() => {
                let feed = self.feeds.swap_remove(n % self.feeds.len());
                self.hub
                    .feed_event(feed.id, FeedEvent::Lost(Unavailable::NoLeader));
            }
            Op::Sync { n, lag } if !self.syncs.is_empty() => {
                let n = n % self.syncs.len();
                self.sync(n, i64::from(*lag));
            }
            Op::Tick(millis) => {
                self.now += Duration::from_millis(u64::from(*millis));
                self.hub.tick(self.now);
            }
            Op::LogLimit(bytes) => {
                self.log_limit = *bytes;
                self.hub.set_log_limit(*bytes);
            }
            Op::Reset(back) => {
                self.reset(i64::from(*back));
                return;
            }
            _ => return,
        }
        self.take_actions(&Cause::Other);
    }

    /// Returns the request fields for a key and a kind of range end.
    fn range(&self, key: usize, end: u8) -> (Bytes, Bytes) {
        let key = key % self.scale.keys;
        let name = name(key);
        match end % 16 {
            0..7 => (name, Bytes::new()),
            7 => (name, Bytes::from_static(b"\0")),
            8 => (Bytes::new(), Bytes::from_static(b"\0")),
            9 => (name.clone(), name),
            10..13 => (name, self::name(key + 2)),
            _ => (name, self::name(key + self.scale.keys / 2 + 1)),
        }
    }

    fn create(&mut self, at: usize, spec: &WatchSpec) {
        let (key, range_end) = self.range(spec.key, spec.end);
        let start = match spec.start {
            Start::Now => 0,
            Start::Back(n) => (self.revision + 1 - i64::from(n)).max(1),
            Start::Ahead(n) => self.revision + 2 + i64::from(n),
            Start::Negative => -3,
            Start::Never => i64::MAX,
        };
        let flag = |bit: u8| spec.flags >> bit & 1 == 1;
        let client = &mut self.clients[at];
        let start_key = if key.is_empty() {
            Bytes::from_static(b"\0")
        } else {
            key.clone()
        };
        client.pending.push_back(Pending::Create(Expect {
            range: KeyRange::of(start_key, range_end.clone()),
            start,
            id: spec.id,
            flags: spec.flags,
            known: self.known,
            check: None,
            gone: None,
            verdict: None,
            refusals: Vec::new(),
            token_refused: false,
        }));
        let create = Create {
            key,
            range_end,
            start_revision: start,
            watch_id: spec.id,
            prev_kv: flag(0),
            progress_notify: flag(1),
            fragment: flag(2),
            no_put: flag(3) && flag(5),
            no_delete: flag(4) && flag(6),
        };
        let id = client.id;
        self.hub.create(id, create);
    }

    fn write(&mut self, key: usize, count: u8, delete: bool, size: usize) {
        self.revision += 1;
        let mut any = false;
        for n in 0..=usize::from(count) {
            let key = (key + n * 2) % self.scale.keys;
            if n > 0
                && self
                    .facts
                    .last()
                    .is_some_and(|f| f.revision == self.revision && f.key == name(key))
            {
                continue;
            }
            let before = self.values.remove(&key);
            if delete && before.is_none() {
                continue;
            }
            let mut kv = mvccpb::KeyValue {
                key: name(key),
                mod_revision: self.revision,
                ..Default::default()
            };
            if !delete {
                kv.create_revision = before.as_ref().map_or(self.revision, |b| b.create_revision);
                kv.version = before.as_ref().map_or(1, |b| b.version + 1);
                kv.value = vec![b'v'; size].into();
                self.values.insert(key, kv.clone());
            }
            any = true;
            self.facts.push(Fact {
                revision: self.revision,
                key: name(key),
                delete,
                encoded: mvccpb::Event {
                    r#type: i32::from(delete),
                    kv: Some(kv),
                    prev_kv: before,
                },
            });
        }
        if !any {
            self.revision -= 1;
        }
    }

    fn answer_check(&mut self, n: usize, verdict: CheckResult) {
        let (check, stream) = self.checks.swap_remove(n);
        if let Some(client) = self.clients.iter_mut().find(|c| c.id == stream) {
            let expected = client.pending.iter_mut().find_map(|pending| match pending {
                Pending::Create(expect) if expect.check == Some(check) => Some(expect),
                _ => None,
            });
            if let Some(expect) = expected {
                expect.verdict = Some(verdict.clone());
            }
        }
        self.hub.check_result(check, verdict);
    }

    /// Advances a feed by one message.
    fn feed(&mut self, n: usize, take: usize, lag: i64) {
        let seen = (self.revision - lag).max(1);
        let header = header(self.revision);
        let feed = &mut self.feeds[n];
        if feed.paused {
            return;
        }
        if !feed.live {
            let Some(start) = feed.start else {
                // One stream serves the whole identity, so one endpoint: its revision does not go
                // back.
                let floor = self.floor(self.feeds[n].identity);
                let at = seen.max(floor);
                let feed = &mut self.feeds[n];
                (feed.live, feed.through) = (true, at);
                let event = FeedEvent::Live {
                    from: at + 1,
                    frontier: at,
                    header: Header {
                        revision: at,
                        ..header
                    },
                };
                self.hub.feed_event(self.feeds[n].id, event);
                return;
            };
            if start < self.compacted {
                return self.deliver_compacted(n);
            }
            (feed.live, feed.through) = (true, start - 1);
            let event = FeedEvent::Live {
                from: start,
                frontier: start - 1,
                header,
            };
            let id = feed.id;
            self.hub.feed_event(id, event);
            return;
        }
        if feed.start.is_some() && feed.through < self.compacted - 1 {
            return self.deliver_compacted(n);
        }
        if let Some(event) = self.next_batch(n, take, seen) {
            let id = self.feeds[n].id;
            self.hub.feed_event(id, event);
        }
    }

    /// Returns the next events of a feed.
    fn next_batch(&mut self, n: usize, take: usize, seen: i64) -> Option<FeedEvent> {
        let feed = &self.feeds[n];
        let from = self
            .facts
            .partition_point(|fact| fact.revision <= feed.through);
        let facts = self.facts[from..]
            .iter()
            .take_while(|fact| fact.revision <= seen)
            .filter(|fact| feed.range.contains(&fact.key));
        let mut revisions: Vec<i64> = facts.clone().map(|fact| fact.revision).collect();
        revisions.dedup();
        let through = *revisions.get(take.min(revisions.len()).checked_sub(1)?)?;
        let mut response = pb::WatchResponse {
            header: Some(pb::ResponseHeader {
                cluster_id: 7,
                member_id: 9,
                // A catch-up has the store's current revision.
                revision: if feed.start.is_some() {
                    self.revision
                } else {
                    through
                },
                raft_term: 3,
            }),
            ..Default::default()
        };
        for fact in facts.take_while(|fact| fact.revision <= through) {
            let mut event = fact.encoded.clone();
            event.prev_kv = event.prev_kv.filter(|_| feed.prev_kv);
            response.events.push(event);
        }
        let bytes = Bytes::from(response.encode_to_vec());
        let response = Response::parse(&bytes).expect("a response");
        self.feeds[n].through = through;
        Some(FeedEvent::Events(Arc::new(Batch {
            header: response.header,
            events: response.events,
            frontier: through,
            bytes: bytes.len(),
        })))
    }

    /// Moves a frontier up to the next event of the feed.
    fn through(&mut self, n: usize, lag: i64) {
        let feed = &mut self.feeds[n];
        if !feed.live || feed.paused {
            return;
        }
        let mut seen = self.revision - lag;
        let from = self
            .facts
            .partition_point(|fact| fact.revision <= feed.through);
        let next = self.facts[from..]
            .iter()
            .find(|fact| feed.range.contains(&fact.key));
        if let Some(fact) = next {
            seen = seen.min(fact.revision - 1);
        }
        if seen > feed.through {
            feed.through = seen;
            let id = feed.id;
            self.hub.feed_event(id, FeedEvent::Frontier(seen));
        }
    }

    fn deliver_compacted(&mut self, n: usize) {
        let feed = self.feeds.swap_remove(n);
        let before: BTreeMap<(StreamId, i64), i64> = self
            .hub
            .watchers()
            .map(|(stream, id, next)| ((stream, id), next))
            .collect();
        let event = FeedEvent::Compacted {
            compact_revision: self.compacted,
            header: header(0),
        };
        self.hub.feed_event(feed.id, event);
        self.take_actions(&Cause::Compacted(self.compacted, before));
    }

    /// Returns the frontier of the identity's live shared feeds: their stream does not go back.
    fn floor(&self, identity: IdentityId) -> i64 {
        let live = self.feeds.iter().filter(|f| f.live && f.start.is_none());
        live.filter(|f| f.identity == identity)
            .map(|f| f.through)
            .max()
            .unwrap_or(0)
    }

    fn sync(&mut self, n: usize, lag: i64) {
        let (stream, identity) = self.syncs.swap_remove(n);
        let revision = (self.revision - lag).max(1).max(self.floor(identity));
        let ids: Vec<FeedId> = self.feeds.iter().map(|feed| feed.id).collect();
        for id in ids {
            while let Some(n) = self.feeds.iter().position(|feed| feed.id == id)
                && self.feeds[n].live
                && self.feeds[n].start.is_none()
                && self.feeds[n].identity == identity
                && self.feeds[n].through < revision
            {
                match self.next_batch(n, 3, revision) {
                    Some(event) => self.hub.feed_event(id, event),
                    None => {
                        self.feeds[n].through = revision;
                        self.hub.feed_event(id, FeedEvent::Frontier(revision));
                    }
                }
                self.take_actions(&Cause::Other);
            }
        }
        self.hub.barrier_answered(stream, revision);
    }

    fn reset(&mut self, back: i64) {
        self.revision = (self.revision - back).max(1);
        let revision = self.revision;
        self.compacted = self.compacted.min(revision);
        self.facts.retain(|fact| fact.revision <= revision);
        self.values.clear();
        for fact in &self.facts {
            let key = self.scale.keys;
            let key = (0..key).find(|key| name(*key) == fact.key).expect("a key");
            match &fact.encoded.kv {
                Some(kv) if !fact.delete => drop(self.values.insert(key, kv.clone())),
                _ => drop(self.values.remove(&key)),
            }
        }
        self.known = revision;
        for client in &mut self.clients {
            client.sent = 0;
            for pending in &mut client.pending {
                if let Pending::Create(expect) = pending {
                    expect.known = expect.known.min(revision);
                    expect.gone = (expect.start > 0).then_some(revision + 1);
                }
            }
        }
        self.hub.history_reset(header(revision));
        self.take_actions(&Cause::Reset(revision + 1));
        let left = self
            .clients
            .iter()
            .map(|client| client.watchers.len())
            .sum::<usize>();
        assert_eq!(left, 0, "a watcher of the old history");
    }

    fn forget(&mut self, stream: StreamId) {
        self.checks.retain(|check| check.1 != stream);
        self.syncs.retain(|sync| sync.0 != stream);
    }

    /// Carries out the actions of the hub, and checks its messages.
    fn take_actions(&mut self, cause: &Cause) {
        let actions: Vec<Action> = self.hub.actions().collect();
        for action in actions {
            match action {
                Action::Check {
                    check,
                    stream,
                    range,
                } => {
                    let client = self.clients.iter_mut().find(|client| client.id == stream);
                    let last = client.and_then(|client| client.pending.back_mut());
                    let Some(Pending::Create(expect)) = last else {
                        panic!("a check without a create");
                    };
                    assert_eq!(expect.range, range);
                    expect.check = Some(check);
                    self.checks.push((check, stream));
                }
                Action::OpenFeed {
                    feed,
                    identity,
                    range,
                    prev_kv,
                    start,
                } => {
                    assert!(self.names.insert(feed), "a feed id used twice");
                    assert!(!range.is_empty() && start.is_none_or(|start| start > 0));
                    self.feeds.push(Feed {
                        id: feed,
                        identity,
                        range,
                        prev_kv,
                        start,
                        live: false,
                        paused: false,
                        through: 0,
                    });
                }
                Action::CloseFeed(id) => {
                    let n = self.feeds.iter().position(|feed| feed.id == id);
                    self.feeds
                        .swap_remove(n.expect("CloseFeed names an open feed"));
                }
                Action::PauseFeed(id) | Action::ResumeFeed(id) => {
                    let pause = matches!(action, Action::PauseFeed(_));
                    let feed = self.feeds.iter_mut().find(|feed| feed.id == id);
                    let feed = feed.expect("PauseFeed and ResumeFeed name an open feed");
                    assert!(feed.start.is_some() && feed.paused != pause);
                    feed.paused = pause;
                }
                Action::RequestBarrier { stream, identity } => {
                    self.syncs.retain(|sync| sync.0 != stream);
                    self.syncs.push((stream, identity));
                }
                Action::Send { stream, message } => self.receive(stream, &message, cause),
                Action::EndStream { stream, .. } => {
                    self.clients.retain(|client| client.id != stream);
                    self.forget(stream);
                }
                Action::ReadRequests(_) => {}
            }
        }
    }

    /// Checks one message to a client.
    fn receive(&mut self, stream: StreamId, message: &Message, cause: &Cause) {
        let bytes = match message {
            Message::Whole(bytes) => bytes.to_vec(),
            Message::Shared { head, tail } => [&head[..], tail].concat(),
        };
        assert_eq!(bytes.len(), message.len());
        let (head, payload) = bytes.split_at(HEAD_LEN);
        assert_eq!(head[0], 0);
        assert_eq!(&head[1..], (payload.len() as u32).to_be_bytes());
        let response = pb::WatchResponse::decode(payload).expect("a response");
        let header = response.header.expect("a header");
        assert_eq!(
            (header.cluster_id, header.member_id, header.raft_term),
            (7, 9, 3)
        );
        assert!(header.revision <= self.revision, "a revision of the future");
        let truth = Truth {
            facts: &self.facts,
            compacted: self.compacted,
        };
        let client = self.clients.iter_mut().find(|client| client.id == stream);
        let client = client.expect("a message for an open stream");
        if let Some(id) = client.fragments_of {
            assert!(
                response.watch_id == id && !response.events.is_empty(),
                "fragments are not contiguous (W6)"
            );
        }
        client.fragments_of = response.fragment.then_some(response.watch_id);
        if response.created {
            client.created(&response, header.revision, &truth);
        } else if response.canceled {
            client.canceled(&response, cause, &truth);
        } else if response.watch_id == -1 && response.events.is_empty() {
            client.barrier(header.revision, &truth);
            self.barriers += 1;
        } else if response.events.is_empty() {
            client.notice(response.watch_id, header.revision, &truth);
        } else {
            self.delivered += response.events.len();
            client.events(&response, &truth);
        }
        client.sent = client.sent.max(header.revision);
    }

    /// Checks the state of the hub, from outside and inside.
    pub(crate) fn verify(&self) {
        self.hub.verify();
        let stats = self.hub.stats();
        // Beyond the limit a log contains at most the last batch of each catch-up, which needs it
        // to go on.
        if stats.log_bytes > self.log_limit {
            for feed in self.hub.feeds() {
                let batches = self.hub.log_of(feed.feed).count();
                assert!(
                    batches <= usize::from(feed.catch_up),
                    "the logs exceed their limit"
                );
            }
        }
        for feed in self.hub.feeds().filter(|feed| feed.frontier.is_some()) {
            let frontier = feed.frontier.unwrap_or_default();
            let own = self
                .feeds
                .iter()
                .find(|other| other.id == feed.feed)
                .expect("an open feed");
            assert_eq!(own.through, frontier);
            let within = |revision: i64| feed.log_from <= revision && revision <= frontier;
            let facts = self
                .facts
                .iter()
                .filter(|fact| within(fact.revision) && feed.range.contains(&fact.key));
            let events = self.hub.log_of(feed.feed).flat_map(|batch| &batch.events);
            let events: Vec<&Event> = events.filter(|event| within(event.revision)).collect();
            assert!(
                facts
                    .map(|fact| (fact.revision, &fact.key[..]))
                    .eq(events.iter().map(|e| (e.revision, &e.key[..]))),
                "I1"
            );
        }
        for (stream, id, next) in self.hub.watchers() {
            let client = self
                .clients
                .iter()
                .find(|client| client.id == stream)
                .expect("a client");
            let private = &client.watchers[&id];
            assert!(private.gone.is_none(), "a start in the old history");
            let missing = self.facts[private.at.min(self.facts.len())..]
                .iter()
                .find(|fact| private.shows(fact));
            assert!(
                missing.is_none_or(|fact| fact.revision >= next),
                "an event is lost"
            );
        }
        self.one_feed_for_a_range();
    }

    /// Checks that no two joined feeds have the same range and identity (W1).
    fn one_feed_for_a_range(&self) {
        let mut seen = BTreeSet::new();
        for feed in self
            .hub
            .feeds()
            .filter(|feed| !feed.catch_up && !feed.retiring)
        {
            let one = seen.insert((feed.identity, feed.range, feed.prev_kv));
            assert!(one, "two feeds of one range");
        }
    }

    /// Lets all clients and feeds complete, and checks that every watcher received all its events.
    pub(crate) fn finish(&mut self) {
        self.hub.set_log_limit(1 << 24);
        self.log_limit = 1 << 24;
        self.drain();
        for key in 0..self.scale.keys {
            self.write(key, 1, false, 3);
        }
        for at in 0..self.clients.len() {
            self.clients[at].progress += 1;
            self.clients[at].pending.push_back(Pending::Progress);
            self.hub.progress(self.clients[at].id);
        }
        self.drain();
        for client in &self.clients {
            for pending in &client.pending {
                match pending {
                    Pending::Create(expect) => panic!("a create has no response: {expect:?}"),
                    Pending::Cancel(id) => assert!(!client.has(*id), "not canceled"),
                    Pending::Progress => {}
                }
            }
            let last = self.revision;
            let future = |private: &Private| private.explicit_start && private.from > last;
            if !client.watchers.is_empty() && !client.watchers.values().any(future) {
                assert_eq!(client.sent, last, "progress is not reported");
            }
        }
        for client in std::mem::take(&mut self.clients) {
            self.hub.stream_closed(client.id);
            self.forget(client.id);
            self.take_actions(&Cause::Other);
        }
        self.verify();
        assert!(self.feeds.is_empty(), "an unused feed stays open");
        let stats = self.hub.stats();
        assert_eq!(
            (stats.streams, stats.watchers, stats.feeds, stats.log_bytes),
            (0, 0, 0, 0)
        );
    }

    fn drain(&mut self) {
        for _ in 0..2_000 {
            for at in 0..self.clients.len() {
                self.hub.add_capacity(self.clients[at].id, 1 << 20);
            }
            self.take_actions(&Cause::Other);
            while !self.checks.is_empty() {
                self.answer_check(0, CheckResult::Granted);
                self.take_actions(&Cause::Other);
            }
            let ids: Vec<FeedId> = self.feeds.iter().map(|feed| feed.id).collect();
            for id in ids {
                for _ in 0..3 {
                    if let Some(n) = self.feeds.iter().position(|feed| feed.id == id) {
                        self.feed(n, 100, 0);
                        self.take_actions(&Cause::Other);
                    }
                }
                if let Some(n) = self.feeds.iter().position(|feed| feed.id == id) {
                    self.through(n, 0);
                    self.take_actions(&Cause::Other);
                }
            }
            while !self.syncs.is_empty() {
                self.sync(0, 0);
                self.take_actions(&Cause::Other);
            }
            let is_create = |pending: &Pending| matches!(pending, Pending::Create(_));
            let creating = self
                .clients
                .iter()
                .any(|client| client.pending.iter().any(is_create));
            let shown = |private: &Private| {
                !self.facts[private.at..]
                    .iter()
                    .any(|fact| private.shows(fact))
            };
            let done = self
                .clients
                .iter()
                .all(|client| client.watchers.values().all(shown));
            let delivered = self
                .feeds
                .iter()
                .all(|feed| feed.live && feed.through >= self.revision);
            let due = self
                .hub
                .wake_at()
                .is_some_and(|wake| wake <= self.now + Duration::from_millis(150));
            if !creating && done && delivered && !due {
                return;
            }
            self.now += Duration::from_millis(60);
            self.hub.tick(self.now);
            self.take_actions(&Cause::Other);
        }
        panic!(
            "the hub does not come to rest: {:?} {:?}",
            self.clients, self.feeds
        );
    }
}

/// Reason that permits the cancellation of a watch.
#[derive(Debug)]
enum Cause {
    Other,
    /// Revisions up to here are compacted. The map has the next revision of each watcher before
    /// that.
    Compacted(i64, BTreeMap<(StreamId, i64), i64>),
    Refused(KeyRange),
    Reset(i64),
}

const REFUSED: &str = "rpc error: refused";
const TOKEN_REFUSED: &str = "rpc error: token refused";

/// Content of the store.
#[derive(Debug)]
struct Truth<'a> {
    facts: &'a [Fact],
    compacted: i64,
}

impl Private {
    /// Reports whether an event belongs to this watcher, once it has started.
    fn shows(&self, fact: &Fact) -> bool {
        let filtered = if fact.delete {
            self.flag(4) && self.flag(6)
        } else {
            self.flag(3) && self.flag(5)
        };
        fact.revision >= self.from && !filtered && self.range.contains(&fact.key)
    }

    fn flag(&self, bit: u8) -> bool {
        self.flags >> bit & 1 == 1
    }
}

impl Client {
    fn created(&mut self, response: &pb::WatchResponse, revision: i64, truth: &Truth<'_>) {
        let expect = loop {
            match self.pending.pop_front().expect("a pending create") {
                Pending::Create(expect) => break expect,
                Pending::Cancel(id) => {
                    assert!(!self.has(id), "a cancel has no response")
                }
                Pending::Progress => {}
            }
        };
        if response.canceled {
            assert_eq!(response.watch_id, -1);
            let fair = match &response.cancel_reason[..] {
                "etcdserver: mvcc: required revision has been compacted" => expect.start < 0,
                "mvcc: watcher range is empty" => {
                    let granted = expect.verdict == Some(CheckResult::Granted);
                    expect.range.is_empty() && expect.start >= 0 && granted
                }
                "mvcc: duplicate watch ID provided on the WatchStream" => {
                    expect.id != 0 && self.has(expect.id)
                }
                "rpc error: no" => matches!(expect.verdict, Some(CheckResult::Refused(_))),
                TOKEN_REFUSED => expect.token_refused,
                REFUSED => expect.refusals.contains(&expect.range),
                _ => false,
            };
            assert!(fair, "refused for {:?}: {expect:?}", response.cancel_reason);
            return;
        }
        assert!(expect.start >= 0 && !expect.range.is_empty());
        assert!(
            expect.verdict == Some(CheckResult::Granted),
            "not permitted: {expect:?}"
        );
        assert!(expect.id == 0 || response.watch_id == expect.id);
        assert!(expect.id != 0 || response.watch_id >= 0);
        assert!(revision >= expect.known, "created below the known revision");
        let from = if expect.start == 0 {
            revision + 1
        } else {
            expect.start
        };
        let private = Private {
            range: expect.range,
            flags: expect.flags,
            from,
            explicit_start: expect.start > 0,
            gone: expect.gone,
            at: truth.facts.partition_point(|fact| fact.revision < from),
            delivered: 0,
        };
        assert!(
            !self.compacted.contains(&response.watch_id),
            "an id used twice"
        );
        let before = self.watchers.insert(response.watch_id, private);
        assert!(before.is_none(), "an id used twice");
    }

    fn canceled(&mut self, response: &pb::WatchResponse, cause: &Cause, truth: &Truth<'_>) {
        let id = response.watch_id;
        let private = self.watchers.remove(&id);
        if response.compact_revision == 0 && response.cancel_reason.is_empty() {
            // The client may cancel a watch that compaction canceled, as with etcd.
            let again = self.compacted.remove(&id);
            assert!(
                private.is_some() || again,
                "the cancelled watch does not exist"
            );
            return self.cancel_completed(id);
        }
        let private = private.expect("the canceled watch is live");
        if response.compact_revision != 0 {
            self.compacted.insert(id);
            assert!(response.cancel_reason.is_empty());
            match cause {
                Cause::Reset(gone) => assert_eq!(response.compact_revision, *gone),
                Cause::Compacted(gone, before) if before.contains_key(&(self.id, id)) => {
                    assert_eq!(response.compact_revision, *gone);
                    let next = before[&(self.id, id)];
                    assert!(
                        next <= *gone,
                        "canceled at {next} by a compaction at {gone}"
                    );
                }
                _ => {
                    // A watch without events so far: its start revision is gone.
                    assert!(private.delivered == 0 && private.explicit_start);
                    assert!(private.gone.is_some() || response.compact_revision <= truth.compacted);
                    assert!(
                        private.gone == Some(response.compact_revision)
                            || private.from <= response.compact_revision
                    );
                }
            }
        } else {
            assert_eq!(response.cancel_reason, REFUSED);
            assert!(matches!(cause, Cause::Refused(range) if *range == private.range));
        }
    }

    /// Removes the pending cancel of `id`, which must be the next request.
    fn cancel_completed(&mut self, id: i64) {
        loop {
            match self.pending.pop_front().expect("a pending cancel") {
                Pending::Create(_) => panic!("canceled before its turn"),
                Pending::Cancel(requested) if requested == id => break,
                Pending::Cancel(other) => assert!(!self.has(other)),
                Pending::Progress => {}
            }
        }
    }

    fn has(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }

    fn events(&mut self, response: &pb::WatchResponse, truth: &Truth<'_>) {
        let private = self
            .watchers
            .get_mut(&response.watch_id)
            .expect("events for a live watch");
        for event in &response.events {
            while truth
                .facts
                .get(private.at)
                .is_some_and(|fact| !private.shows(fact))
            {
                private.at += 1;
            }
            let fact = truth.facts.get(private.at).expect("an event of the store");
            private.at += 1;
            let mut expected = fact.encoded.clone();
            if !private.flag(0) {
                expected.prev_kv = None;
            }
            assert_eq!(*event, expected, "not the next event");
            private.delivered = fact.revision;
        }
        // W5: a revision is complete, or in fragments if the client requested them.
        let rest = &truth.facts[private.at..];
        let mut rest = rest
            .iter()
            .take_while(|fact| fact.revision == private.delivered);
        let whole = !rest.any(|fact| private.shows(fact));
        assert!(whole || response.fragment, "half a revision");
        assert!(
            !response.fragment || private.flag(2),
            "fragments without a request"
        );
        let last = response.header.map_or(0, |header| header.revision);
        assert!(last >= private.delivered, "a header below its events");
    }

    fn notice(&mut self, id: i64, revision: i64, truth: &Truth<'_>) {
        let private = self.watchers.get(&id).expect("a notice for a live watch");
        assert!(private.flag(1), "a notice without a request");
        assert!(
            revision >= private.delivered && revision + 1 >= private.from,
            "progress goes back"
        );
        private.shown_all(revision, truth);
    }

    /// Checks the response to a progress request (W8).
    fn barrier(&mut self, revision: i64, truth: &Truth<'_>) {
        self.progress = self
            .progress
            .checked_sub(1)
            .expect("a pending progress request");
        assert!(
            !self.watchers.is_empty(),
            "a progress response on a stream without a watch"
        );
        assert!(revision >= self.sent, "progress goes back");
        for private in self.watchers.values() {
            assert!(
                !private.explicit_start || private.from <= revision,
                "progress before the start"
            );
            private.shown_all(revision, truth);
        }
    }
}

impl Private {
    fn shown_all(&self, revision: i64, truth: &Truth<'_>) {
        let rest = truth.facts[self.at..].iter();
        let mut rest = rest.take_while(|fact| fact.revision <= revision);
        assert!(
            !rest.any(|fact| self.shows(fact)),
            "progress beyond the delivered events"
        );
    }
}

fn header(revision: i64) -> Header {
    Header {
        cluster_id: 7,
        member_id: 9,
        revision,
        raft_term: 3,
    }
}

fn name(key: usize) -> Bytes {
    if key < 20 {
        return Bytes::from(vec![b'a' + key as u8]);
    }
    Bytes::from(format!("k{key:05}"))
}
