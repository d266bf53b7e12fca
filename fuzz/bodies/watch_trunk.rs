//! Fuzz body for the trunk, against a simulated etcd. The allowed events of each feed are computed
//! from the history: each event of its range once, in order, revisions whole. The frontier is never
//! beyond the delivered events (W2, W3, W5).
//!
//! The input is four bytes that select the world, then a list of [`Op`]s, three bytes each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::limits::WATCH_PROGRESS_DROPPED;
use etcd_edge::state_machine::watch::trunk::{
    Action, BarrierWaiter, ReconnectReason, Subscriber, Trunk,
};
use etcd_edge::state_machine::watch::{FeedEvent, Unavailable};
use etcd_edge::wire::range::KeyRange;
use etcd_edge::wire::response_header::Header;
use etcd_edge::wire::watch::Response;

#[path = "watch_trunk/etcd.rs"]
mod etcd;

use etcd::{Etcd, MEMBERS, Stream};

/// Maximum number of operations of one run.
const MAX_OPS: usize = 4_096;

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
const BAD_TOKEN: &str = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";

/// One step of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// A write creates a revision, as in [`Etcd::write`].
    Write(u8, u8),
    /// A member applies revisions. Now and then the queue of the stream is full.
    Apply(u8, u8),
    /// The member handles requests.
    Serve(u8, u8),
    /// The sender of the stream takes responses from its queues.
    Flow(u8, u8),
    /// The trunk reads responses.
    Read(u8),
    /// The unsynced watches of the member catch up.
    CatchUp(u8, u8),
    /// A feed is opened on a range.
    Open(u8, u8),
    /// A feed is closed.
    Close(u8),
    /// A barrier is requested.
    Sync(u8),
    /// A barrier request is withdrawn.
    Unsync(u8),
    /// Time passes.
    Tick(u8, u8),
    /// The requested stream opens at a member, or fails to open.
    Connect(u8, u8),
    /// The stream dies.
    Die,
    /// The history is compacted, except for some last revisions.
    Compact(u8),
    /// etcd sends progress notifications.
    Notify,
    /// The member installs a snapshot.
    Snapshot,
    /// The next create is refused.
    Refuse(u8),
    /// The search for a token ends: a token works, or none.
    Token(u8),
    /// The driver gives up.
    GiveUp(u8),
    /// The store is restored from a backup.
    Restore(u8),
    /// etcd sends a response that a real etcd never sends.
    Invalid(u8),
    /// The member handles all requests, and the trunk reads the responses.
    Round(u8, u8),
}

impl Op {
    /// Encoded length in bytes.
    pub(crate) const LEN: usize = 3;

    /// Decodes any three bytes. Operations that make progress are more frequent than failures.
    pub(crate) fn decode([kind, a, b]: [u8; Op::LEN]) -> Op {
        match kind % 64 {
            0..=5 => Op::Write(a, b),
            6..=7 => Op::Round(a, b),
            8..=9 => Op::Tick(a, b),
            10..=17 => Op::Apply(a, b),
            18..=25 => Op::Serve(a, b),
            26..=32 => Op::Flow(a, b),
            33..=40 => Op::Read(a),
            41..=43 => Op::CatchUp(a, b),
            44..=47 => Op::Open(a, b),
            48..=49 => Op::Close(a),
            50..=51 => Op::Sync(a),
            52 => Op::Unsync(a),
            53..=54 => Op::Sync(a),
            55..=56 => Op::Connect(a, b),
            57 => Op::Die,
            58 => Op::Compact(a),
            59 => Op::Notify,
            60 => Op::Snapshot,
            61 => Op::Refuse(a),
            62 => match a % 8 {
                0 => Op::GiveUp(b),
                1 => Op::Restore(b),
                2 | 3 => Op::Invalid(b),
                4..=6 => Op::Token(b),
                _ => Op::Connect(a, b),
            },
            _ => Op::Round(a, b),
        }
    }
}

/// Counts of the events of a run, so that a test can check that the run was not idle.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) through: u64,
    pub(crate) synced: u64,
    pub(crate) resumed: u64,
    pub(crate) compacted: u64,
    pub(crate) refused: u64,
    pub(crate) parts: u64,
    pub(crate) verified: u64,
    /// Refused tokens while other watches on the stream are live.
    pub(crate) token_searches: u64,
    /// Feeds whose watch is refused because no token works.
    pub(crate) token_refusals: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Seen) {
        self.events += more.events;
        self.through += more.through;
        self.synced += more.synced;
        self.resumed += more.resumed;
        self.compacted += more.compacted;
        self.refused += more.refused;
        self.parts += more.parts;
        self.verified += more.verified;
        self.token_searches += more.token_searches;
        self.token_refusals += more.token_refusals;
    }
}

/// Decodes four bytes as the world and the rest as operations, and runs them.
pub(crate) fn run(data: &[u8]) {
    let (world, ops) = data.split_at(data.len().min(4));
    let world = [0, 1, 2, 3].map(|n| world.get(n).copied().unwrap_or(0));
    let ops = ops
        .chunks_exact(Op::LEN)
        .map(|op| Op::decode([op[0], op[1], op[2]]));
    check(world, ops.take(MAX_OPS));
}

/// Runs the operations, then lets the trunk finish and checks that all events were delivered.
pub(crate) fn check(world: [u8; 4], ops: impl IntoIterator<Item = Op>) -> Seen {
    let mut world = World::new(world);
    for op in ops {
        world.step(op);
    }
    world.finish();
    world.seen
}

/// Expectations for a feed, and its progress.
struct Feed {
    range: KeyRange,
    prev_kv: bool,
    /// Start revision of a catch-up.
    start: Option<i64>,
    /// Revision up to which all events were delivered. Set once the feed is Live.
    through: Option<i64>,
    /// The history went back since. The only valid event is the one that reports this.
    obsolete: bool,
    over: bool,
}

/// Guarantees of a requested barrier.
struct Wait {
    at: u64,
    feeds: Vec<Subscriber>,
    floor: i64,
}

struct World {
    etcd: Etcd,
    trunk: Trunk,
    catch_up: bool,
    stream: Option<Stream>,
    /// Generation of a requested stream that is not open yet.
    connecting: Option<u64>,
    now: Instant,
    /// Counter that increases with every event.
    moment: u64,
    feeds: BTreeMap<Subscriber, Feed>,
    waits: BTreeMap<BarrierWaiter, Wait>,
    next_feed: u64,
    /// For the current stream: the moment at which each watch's `created` was read.
    created: BTreeMap<(KeyRange, bool), u64>,
    /// Time at which each progress request was sent.
    progress_sent: BTreeMap<u64, Instant>,
    /// Number of progress responses read.
    answers: u64,
    /// Time at which the stream opened.
    opened: Instant,
    /// A progress response arrived after the trunk's limit: a barrier may use an older request.
    late: bool,
    /// Response that the trunk is reading.
    reading: Option<(Response, Option<u64>)>,
    verify: Option<(u64, Header)>,
    giving_up: Option<Unavailable>,
    /// The driver reports that no token works.
    tokenless: bool,
    reset: Option<Header>,
    /// Refusals sent by etcd.
    reasons: BTreeSet<&'static str>,
    seen: Seen,
}

impl World {
    fn new([kind, start, revisions, _]: [u8; 4]) -> World {
        let etcd = Etcd::new(usize::from(revisions) % 24);
        let now = Instant::now();
        let mut world = World {
            etcd,
            trunk: Trunk::shared(),
            catch_up: kind % 4 == 3,
            stream: None,
            connecting: None,
            now,
            moment: 0,
            feeds: BTreeMap::new(),
            waits: BTreeMap::new(),
            next_feed: 0,
            created: BTreeMap::new(),
            progress_sent: BTreeMap::new(),
            answers: 0,
            opened: now,
            late: false,
            reading: None,
            verify: None,
            giving_up: None,
            tokenless: false,
            reset: None,
            reasons: BTreeSet::new(),
            seen: Seen::default(),
        };
        world.step(Op::Open(kind / 4, start));
        world
    }

    fn step(&mut self, op: Op) {
        self.moment += 1;
        match op {
            Op::Write(keys, kinds) => self.etcd.write(keys, kinds),
            Op::Apply(member, n) => self.apply(member, n),
            Op::Serve(n, draw) => {
                for _ in 0..=n % 4 {
                    if let Some(stream) = &mut self.stream {
                        let gap = if draw & 1 == 1 { draw >> 1 & 3 } else { 0 };
                        self.etcd.serve(stream, gap, draw & 24 == 24);
                    }
                }
            }
            Op::Flow(n, draw) => {
                for turn in 0..=n % 8 {
                    if let Some(stream) = &mut self.stream {
                        stream.flow(draw >> turn & 1 == 1);
                    }
                }
            }
            Op::Read(n) => {
                for _ in 0..=n % 8 {
                    self.read();
                }
            }
            Op::CatchUp(limit, cuts) => {
                if let Some(stream) = &mut self.stream {
                    let limit = usize::from(limit % 4) + 1;
                    self.etcd.catch_up(stream, limit, cuts);
                }
            }
            Op::Open(range, kind) => self.open(range, kind),
            Op::Close(n) => self.close(n),
            Op::Sync(n) => self.sync(waiter(n)),
            Op::Unsync(n) => {
                self.waits.remove(&waiter(n));
                self.trunk.cancel_barrier(waiter(n));
            }
            Op::Tick(a, b) => {
                let most = if b % 4 == 0 { 12_000 } else { 300 };
                self.advance(Duration::from_millis(u64::from(a) * most / 255));
            }
            Op::Connect(member, draw) => {
                let foreign = member % 16 == 15;
                let member = usize::from(member) % MEMBERS;
                self.connect(if foreign { MEMBERS } else { member }, draw);
            }
            Op::Die => {
                if let Some(stream) = self.stream.take() {
                    self.trunk.lost(stream.generation);
                }
            }
            Op::Compact(n) => self.etcd.compact(self.etcd.head() - i64::from(n % 8)),
            Op::Notify => {
                if let Some(stream) = &mut self.stream {
                    self.etcd.notify(stream);
                }
            }
            Op::Snapshot => {
                if let Some(stream) = &mut self.stream {
                    self.etcd.snapshot(stream);
                }
            }
            Op::Refuse(n) => {
                if let Some(stream) = &mut self.stream {
                    let reason = if n % 2 == 0 { DENIED } else { BAD_TOKEN };
                    stream.refuse = Some(reason);
                    self.reasons.insert(reason);
                }
            }
            Op::Token(n) if n % 2 == 1 => self.trunk.token_found(),
            Op::Token(_) => {
                self.tokenless = true;
                self.trunk.no_token_found();
                self.act();
                self.tokenless = false;
                assert!(
                    self.stream.is_some()
                        || self.connecting.is_some()
                        || self.trunk.watchers() == 0
                );
            }
            Op::GiveUp(n) => {
                let reason = if n % 2 == 0 {
                    Unavailable::Unavailable
                } else {
                    Unavailable::NoLeader
                };
                self.giving_up = Some(reason);
                self.trunk.fail_feeds(reason);
            }
            Op::Restore(n) => {
                let revision = self.etcd.head() - i64::from(n % 8);
                self.etcd.restore(revision);
                for feed in self.feeds.values_mut() {
                    feed.obsolete = feed.through.is_some();
                }
                if let Some(stream) = self.stream.take() {
                    self.trunk.lost(stream.generation);
                }
            }
            Op::Invalid(n) => self.inject_invalid(n),
            Op::Round(a, b) => {
                self.step(Op::Serve(3, a));
                self.step(Op::Flow(7, b));
                self.step(Op::Read(7));
                return;
            }
        }
        self.act();
    }

    fn apply(&mut self, member: u8, n: u8) {
        // Mostly the member of the stream.
        let member = match &self.stream {
            Some(stream) if !member.is_multiple_of(4) => stream.member % MEMBERS,
            _ => usize::from(member) % MEMBERS,
        };
        for turn in 0..=n % 4 {
            let full = turn == 0 && n >= 240;
            self.etcd.apply(member, self.stream.as_mut(), full);
        }
    }

    fn open(&mut self, range: u8, kind: u8) {
        let ranges: [(&[u8], &[u8]); 5] = [
            (b"a", b""),
            (b"b", b""),
            (b"a", b"c"),
            (b"\0", b"\0"),
            (b"c", b"\0"),
        ];
        let (key, end) = ranges[usize::from(range) % ranges.len()];
        let range = KeyRange::of(Bytes::copy_from_slice(key), Bytes::copy_from_slice(end));
        let prev_kv = kind % 2 == 1;
        let subscriber = Subscriber {
            worker: u32::from(kind % 3),
            feed: self.next_feed,
        };
        let start = if self.catch_up {
            if self.trunk.watchers() > 0 {
                return;
            }
            // Often in the past, sometimes in the future.
            Some((self.etcd.head() + 4 - i64::from(kind / 2) % 24).max(1))
        } else {
            None
        };
        self.next_feed += 1;
        let feed = Feed {
            range: range.clone(),
            prev_kv,
            start,
            through: None,
            obsolete: false,
            over: false,
        };
        self.feeds.retain(|_, feed| !feed.over);
        self.feeds.insert(subscriber, feed);
        match start {
            Some(start) => {
                // The barriers of the previous feed ended with it.
                self.waits.clear();
                self.trunk = Trunk::catch_up(subscriber, range, prev_kv, start);
            }
            None => self.trunk.open(subscriber, range, prev_kv),
        }
    }

    fn close(&mut self, n: u8) {
        let open: Vec<Subscriber> = self.open_feeds();
        if let Some(subscriber) = open.get(usize::from(n) % open.len().max(1)) {
            self.feeds.remove(subscriber);
            self.trunk.close(*subscriber);
        }
    }

    fn sync(&mut self, waiter: BarrierWaiter) {
        let feeds = self.open_feeds();
        let wait = Wait {
            at: self.moment,
            feeds,
            floor: self.seen_revision(),
        };
        self.waits.entry(waiter).or_insert(wait);
        self.trunk.request_barrier(waiter, self.now);
    }

    /// Returns the lowest valid revision of a barrier requested now: the delivered revision.
    fn seen_revision(&self) -> i64 {
        let open = self.feeds.values().filter(|feed| !feed.over);
        let delivered = open
            .filter(|feed| feed.start.is_none())
            .filter_map(|feed| feed.through);
        delivered.max().unwrap_or(0)
    }

    fn open_feeds(&self) -> Vec<Subscriber> {
        let open = self.feeds.iter().filter(|(_, feed)| !feed.over);
        open.map(|(subscriber, _)| *subscriber).collect()
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        if self.trunk.wake_at().is_some_and(|due| due <= self.now) {
            self.trunk.tick(self.now);
            let due = self.trunk.wake_at();
            assert!(due.is_none_or(|due| due > self.now), "a needless wake-up");
        }
    }

    fn connect(&mut self, member: usize, draw: u8) {
        let Some(generation) = self.connecting.take() else {
            return;
        };
        if draw % 8 == 7 {
            self.trunk.lost(generation);
            return;
        }
        self.stream = Some(Stream::new(generation, member));
        self.created.clear();
        self.progress_sent.clear();
        self.answers = 0;
        self.opened = self.now;
        self.late = false;
        self.trunk.connected(generation, draw % 8 != 6, self.now);
        self.act();
        // A response on the previous stream has no effect.
        let late = Response {
            created: true,
            ..Response::default()
        };
        self.trunk.response(generation - 1, late, self.now);
        assert_eq!(self.trunk.next_action(), None);
    }

    fn read(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let generation = stream.generation;
        let Some(answer) = stream.read() else {
            return;
        };
        let response = answer.response;
        if response.fragment {
            self.seen.parts += 1;
        }
        if response.created
            && let Some(watch) = stream.watch(response.watch_id)
        {
            self.created.entry(watch).or_insert(self.moment);
        }
        if response.watch_id == -1 && !response.created {
            self.answers += 1;
            let age = answer.sent_at.and_then(|at| self.progress_sent.get(&at));
            let age = age.map_or(Duration::ZERO, |sent| self.now - *sent);
            self.late |= age >= WATCH_PROGRESS_DROPPED;
        }
        self.reading = Some((response.clone(), answer.sent_at));
        self.trunk.response(generation, response, self.now);
        self.act();
        self.reading = None;
        // Each response has a moment of its own.
        self.moment += 1;
    }

    fn inject_invalid(&mut self, n: u8) {
        let header = self.etcd.header(0, self.etcd.head());
        let Some(stream) = &mut self.stream else {
            return;
        };
        let id = stream.any_id().unwrap_or(1);
        let response = match n % 4 {
            // A `created` without a create request.
            0 => Response {
                header,
                watch_id: 4_000,
                created: true,
                ..Response::default()
            },
            // A cancellation without a request.
            1 => Response {
                header,
                watch_id: id,
                canceled: true,
                ..Response::default()
            },
            // An id that was never requested.
            2 => Response {
                header,
                watch_id: 5_000,
                ..Response::default()
            },
            _ => Response {
                header,
                watch_id: -1,
                canceled: true,
                ..Response::default()
            },
        };
        stream.inject(response);
    }

    /// Carries out the actions of the trunk.
    fn act(&mut self) {
        while let Some(action) = self.trunk.next_action() {
            self.moment += 1;
            match action {
                Action::Connect { generation, reason } => {
                    assert!(self.connecting.is_none() || reason == ReconnectReason::Lost);
                    if reason == ReconnectReason::Token {
                        assert!(self.reasons.contains(BAD_TOKEN));
                    }
                    self.stream = None;
                    self.connecting = Some(generation);
                    self.seen.resumed += u64::from(reason != ReconnectReason::Needed);
                }
                Action::Disconnect { generation } => {
                    let up = self.stream.take().map(|stream| stream.generation);
                    assert_eq!(up.or(self.connecting.take()), Some(generation));
                }
                Action::Send {
                    generation,
                    message,
                } => self.send(generation, &message),
                Action::Deliver { subscriber, event } => self.deliver(subscriber, &event),
                Action::BarrierAnswered { waiter, revision } => self.synced(waiter, revision),
                Action::FindToken => {
                    assert!(self.reasons.contains(BAD_TOKEN) && self.trunk.needs_token());
                    assert!(!self.created.is_empty(), "a stream without a live watch");
                    self.seen.token_searches += 1;
                }
                Action::VerifyHistory {
                    generation, header, ..
                } => self.verify = Some((generation, header)),
            }
        }
        if let Some((generation, header)) = self.verify.take() {
            self.seen.verified += 1;
            self.check_history(generation, header);
            self.act();
        }
        if self.giving_up.take().is_some() || self.reset.take().is_some() {
            assert!(self.open_feeds().is_empty(), "a feed did not end");
        }
        self.verify_watchers();
    }

    fn send(&mut self, generation: u64, message: &[u8]) {
        let stream = self.stream.as_mut().expect("a stream is up");
        assert_eq!(stream.generation, generation);
        if stream.send(message, self.moment) {
            self.progress_sent.insert(self.moment, self.now);
            let passed = (self.now - self.opened).as_millis() / 100;
            assert!(
                self.progress_sent.len() as u128 <= 1 + u128::from(self.answers) + passed,
                "too many progress requests"
            );
        }
    }

    /// Checks the rules W11 and W1.
    fn verify_watchers(&self) {
        let connected = self.stream.is_some() || self.connecting.is_some();
        assert_eq!(connected, self.trunk.watchers() > 0, "W11");
        let open = self.feeds.values().filter(|feed| !feed.over);
        let kinds: BTreeSet<_> = open.map(|feed| (&feed.range, feed.prev_kv)).collect();
        assert_eq!(kinds.len(), self.trunk.watchers(), "W1");
    }

    /// Compares the history with a linearizable read, and reports the outcome to the trunk.
    fn check_history(&mut self, generation: u64, header: Header) {
        let truth = self.etcd.header(0, self.etcd.head());
        if header.cluster_id == truth.cluster_id && header.revision < truth.revision {
            self.trunk.history_confirmed(generation);
        } else if header.cluster_id == truth.cluster_id {
            // The trunk was connected to another cluster before.
            self.reset = Some(truth);
            for wait in self.waits.values_mut() {
                wait.floor = wait.floor.min(truth.revision);
            }
            self.trunk.history_reset(truth);
        } else {
            self.trunk.history_confirmed(generation);
        }
    }

    fn deliver(&mut self, subscriber: Subscriber, event: &FeedEvent) {
        let feed = self.feeds.get(&subscriber).expect("the feed exists");
        assert!(!feed.over, "an event after the last one of the feed");
        match event {
            FeedEvent::Live {
                from,
                frontier: through,
                header,
            } => self.live(subscriber, *from, *through, *header),
            FeedEvent::Events(batch) => {
                let from = feed.through.expect("a feed begins with Live") + 1;
                // A feed that started at a foreign endpoint may stay with a foreign one.
                let obsolete = feed.obsolete && batch.header.cluster_id == self.etcd.cluster_id;
                assert!(!obsolete, "events of the old history");
                let truth = self
                    .etcd
                    .events(&feed.range, from, batch.frontier, feed.prev_kv);
                assert_eq!(batch.events, truth, "{subscriber:?} from {from}");
                assert_eq!(
                    batch.events.last().map(|last| last.revision),
                    Some(batch.frontier)
                );
                assert!(batch.bytes > batch.events.len());
                self.seen.events += truth.len() as u64;
                self.move_frontier(subscriber, batch.frontier);
            }
            FeedEvent::Frontier(revision) => {
                let from = feed.through.expect("a feed begins with Live") + 1;
                assert!(*revision >= from, "F does not move");
                let missed = self.etcd.events(&feed.range, from, *revision, feed.prev_kv);
                assert_eq!(missed, [], "{subscriber:?} from {from} through {revision}");
                self.check_moved_by_response(feed);
                self.seen.through += 1;
                self.move_frontier(subscriber, *revision);
            }
            FeedEvent::Compacted {
                compact_revision, ..
            } => {
                match self.reset {
                    Some(header) => assert_eq!(*compact_revision, header.revision + 1),
                    None => {
                        let through = feed.through.expect("a feed begins with Live");
                        assert!(*compact_revision > through + 1, "nothing is missing");
                        assert!(*compact_revision <= self.etcd.compacted);
                        self.seen.compacted += 1;
                    }
                }
                self.end_feed(subscriber);
            }
            FeedEvent::Refused(reason) => {
                assert_eq!(reason, DENIED);
                self.seen.refused += 1;
                self.end_feed(subscriber);
            }
            FeedEvent::TokenRefused(reason) => {
                assert_eq!(reason, BAD_TOKEN);
                assert_eq!(feed.through, None, "a feed that was live");
                assert!(self.tokenless || self.giving_up.is_some());
                self.seen.token_refusals += 1;
            }
            FeedEvent::Lost(reason) => {
                // Without a token, only a watch that was live before is lost.
                let lost = self.tokenless && feed.through.is_some();
                assert!(lost || Some(*reason) == self.giving_up);
                self.end_feed(subscriber);
            }
        }
    }

    fn live(&mut self, subscriber: Subscriber, from: i64, through: i64, header: Header) {
        let feed = &self.feeds[&subscriber];
        assert_eq!(feed.through, None, "Live arrives once");
        assert_eq!(from, through + 1);
        let mut others = self.feeds.iter().filter(|(_, other)| {
            !other.over && (&other.range, other.prev_kv) == (&feed.range, feed.prev_kv)
        });
        let joined = others.find_map(|(_, other)| Some((other.through?, other.obsolete)));
        match (feed.start, joined, &self.reading) {
            (Some(start), ..) => assert_eq!(from, start),
            (None, Some((frontier, _)), _) => {
                assert_eq!(through, frontier, "a feed joins at the others' frontier");
            }
            (None, None, Some((created, _))) => {
                assert!(created.created);
                assert_eq!((through, header), (created.header.revision, created.header));
            }
            (None, None, None) => panic!("Live without a response"),
        }
        let obsolete = joined.is_some_and(|(_, obsolete)| obsolete);
        if let Some(feed) = self.feeds.get_mut(&subscriber) {
            feed.obsolete = obsolete;
        }
        self.move_frontier(subscriber, through);
    }

    /// Checks that a response for the whole stream moves no watch created after the request was
    /// sent.
    fn check_moved_by_response(&self, feed: &Feed) {
        let Some((response, sent_at)) = &self.reading else {
            panic!("F moves without a response");
        };
        assert!(response.events.is_empty() && !response.created && !response.canceled);
        if let Some(sent_at) = sent_at
            && !self.late
        {
            let created = self.created.get(&(feed.range.clone(), feed.prev_kv));
            assert!(created.is_some_and(|created| created < sent_at));
        }
    }

    fn synced(&mut self, waiter: BarrierWaiter, revision: i64) {
        let wait = self.waits.remove(&waiter).expect("a requested barrier");
        let Some((response, Some(sent_at))) = &self.reading else {
            panic!("a barrier without a response");
        };
        assert_eq!(response.header.revision, revision);
        assert!(
            revision >= wait.floor,
            "a barrier below the delivered revision"
        );
        assert!(
            self.late || *sent_at > wait.at,
            "a barrier with an older request"
        );
        for subscriber in &wait.feeds {
            if let Some(feed) = self.feeds.get(subscriber).filter(|feed| !feed.over) {
                // No client depends on a feed that waits for a token and was never live.
                if feed.through.is_none() && self.trunk.needs_token() {
                    continue;
                }
                assert!(
                    feed.through >= Some(revision),
                    "{subscriber:?} is behind its barrier"
                );
            }
        }
        self.seen.synced += 1;
    }

    fn move_frontier(&mut self, subscriber: Subscriber, through: i64) {
        if let Some(feed) = self.feeds.get_mut(&subscriber) {
            feed.through = Some(through);
        }
    }

    fn end_feed(&mut self, subscriber: Subscriber) {
        if let Some(feed) = self.feeds.get_mut(&subscriber) {
            feed.over = true;
        }
    }

    /// Lets time pass without failures. Checks that all events are delivered, that every barrier
    /// completes, and that etcd has the same watchers as the trunk.
    fn finish(&mut self) {
        // etcd sends no progress while a watch starts in the future.
        let starts = self.feeds.values().filter_map(|feed| feed.start);
        let last = starts.max().unwrap_or(0);
        while self.etcd.head() < last {
            self.etcd.write(1, 0);
        }
        for turn in 0..60 {
            for member in 0..MEMBERS {
                while self.etcd.applied(member) < self.etcd.head() {
                    self.etcd.apply(member, self.stream.as_mut(), false);
                }
            }
            self.step(Op::Connect(turn % MEMBERS as u8, 0));
            if self
                .stream
                .as_ref()
                .is_some_and(|stream| stream.member == MEMBERS)
            {
                self.step(Op::Die);
            }
            let mut quiet = 0;
            while quiet < 3 {
                self.step(Op::CatchUp(3, turn));
                self.step(Op::Round(0, 85));
                let still = self.stream.as_ref().is_none_or(Stream::is_quiet);
                quiet = if still { quiet + 1 } else { 0 };
            }
            if let Some(stream) = &mut self.stream {
                stream.refuse = None;
            }
            self.step(Op::Token(1));
            // A second, and at the end more than ten seconds.
            self.step(Op::Tick(if turn < 40 { 22 } else { 255 }, 0));
        }
        let head = self.etcd.head();
        let Some(stream) = &self.stream else {
            assert_eq!(self.trunk.watchers(), 0);
            return;
        };
        assert_eq!(
            stream.registered().len(),
            self.trunk.watchers(),
            "watchers at etcd without a watcher in the trunk"
        );
        // An endpoint with unsound progress responses delivers only events.
        let sound = !self.progress_sent.is_empty();
        for (subscriber, feed) in self.feeds.iter().filter(|(_, feed)| !feed.over) {
            let through = feed.through.expect("every feed is Live in the end");
            let missed = self
                .etcd
                .events(&feed.range, through + 1, head, feed.prev_kv);
            assert_eq!(missed, [], "{subscriber:?} through {through} of {head}");
            assert!(
                !sound || through >= head,
                "{subscriber:?} through {through} of {head}"
            );
        }
        assert!(!sound || self.waits.is_empty(), "a barrier never completes");
    }
}

fn waiter(n: u8) -> BarrierWaiter {
    BarrierWaiter {
        worker: u32::from(n % 2),
        stream: u64::from(n % 5),
    }
}
