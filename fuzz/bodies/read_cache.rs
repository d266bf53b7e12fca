//! Fuzz body for the read cache and its floors, against the history of the store. A cached response
//! was true. It is not older than an acknowledged write, than its age limit, or than an earlier
//! response on the same connection.
//!
//! The input is a list of [`Op`]s, three bytes each. Members lag. Writes and reads overlap and
//! return in any order or never. Watches prove entries and report events late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::limits;
use etcd_edge::state_machine::reads::cache::{
    Cache, CacheDecision, CacheKey, CachedResponse, Proof, ServeConditions,
};
use etcd_edge::state_machine::reads::invalidation_floor::InvalidationFloors;
use etcd_edge::state_machine::reads::watch_proof::WatchProof;
use etcd_edge::state_machine::watch::{Batch, FeedEvent};
use etcd_edge::wire::range::KeyRange;
use etcd_edge::wire::response_header::Header;
use etcd_edge::wire::watch::Event;

/// Maximum number of operations of one run.
const MAX_OPS: usize = 2_048;

const KEYS: u8 = 6;
const CLIENTS: usize = 3;
const MOST_BYTES: usize = 4_000;
const MAX_AGE: Duration = Duration::from_secs(1);

/// One step of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// Another client writes keys, past this proxy.
    WriteElsewhere(u8),
    /// A write through the proxy is sent to etcd.
    Begin(u8),
    /// etcd applies one of the writes in flight.
    Apply(u8),
    /// The proxy receives the response to an applied write.
    Acknowledge(u8),
    /// A write is abandoned: it was applied, will be applied, or never is.
    GiveUp(u8),
    /// A client requests a range.
    Request(u8, u8),
    /// A member serves a read in flight, at the revision of that member.
    Serve(u8, u8),
    /// The response to a read arrives.
    Return(u8),
    /// A watch starts to prove an entry, from the revision of the response, or from an earlier or
    /// later one.
    StartProof(u8, u8),
    /// A watch delivers its next event.
    Deliver(u8),
    /// A progress request is sent on a watch.
    Probe(u8),
    /// The response to the progress request arrives.
    Prove(u8),
    /// A watch ends.
    EndProof(u8),
    /// An entry is evicted.
    Evict(u8),
    /// A client requests a range. If the cache has no entry, an up-to-date member responds at once.
    Read(u8, u8),
    /// Time passes.
    Tick(u8, u8),
}

impl Op {
    /// Encoded length in bytes.
    pub(crate) const LEN: usize = 3;

    /// Decodes any three bytes. Operations that make progress are more frequent.
    pub(crate) fn decode([kind, a, b]: [u8; Op::LEN]) -> Op {
        match kind % 32 {
            0 => Op::WriteElsewhere(a),
            1..=2 => Op::Begin(a),
            3..=4 => Op::Apply(a),
            5..=6 => Op::Acknowledge(a),
            7 if a % 8 == 0 => Op::GiveUp(b),
            7..=11 => Op::Request(a, b),
            12..=16 => Op::Read(a, b),
            17..=19 => Op::Serve(a, b),
            20..=22 => Op::Return(a),
            23 => Op::StartProof(a, b),
            24..=25 => Op::Deliver(a),
            26 => Op::Probe(a),
            27 => Op::Prove(a),
            28 if a % 4 == 0 => Op::EndProof(b),
            29 if a % 8 == 0 => Op::Evict(b),
            _ => Op::Tick(a, b),
        }
    }
}

/// Counts of the events of a run, so that a test can check that the run was not idle.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    /// Responses from the cache.
    pub(crate) hits: u64,
    /// Cache hits beyond the age limit that a watch proved.
    pub(crate) proved: u64,
    /// Cache hits returned at a later revision than the entry was read at.
    pub(crate) advanced: u64,
    /// Requests without a cache hit.
    pub(crate) misses: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unsure: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Seen) {
        self.hits += more.hits;
        self.proved += more.proved;
        self.advanced += more.advanced;
        self.misses += more.misses;
        self.acknowledged += more.acknowledged;
        self.unsure += more.unsure;
    }
}

/// Decodes any bytes as operations and runs them.
pub(crate) fn run(data: &[u8]) {
    let ops = data
        .chunks_exact(Op::LEN)
        .map(|op| Op::decode([op[0], op[1], op[2]]));
    check(ops.take(MAX_OPS));
}

/// Runs the operations.
pub(crate) fn check(ops: impl IntoIterator<Item = Op>) -> Seen {
    let mut world = World::new();
    for op in ops {
        world.step(op);
    }
    world.seen
}

/// A write through the proxy.
struct Write {
    range: KeyRange,
    /// Revision of the write once it is applied.
    applied: Option<i64>,
    /// Set for an abandoned write: it may be applied until this time.
    abandoned: Option<Instant>,
}

/// A read in flight.
struct Read {
    client: usize,
    query: usize,
    sent: Instant,
    /// Revision at which a member served the read.
    served: Option<i64>,
}

/// A watch that proves an entry.
struct Watch {
    cover: WatchProof,
    /// Revision up to which all events have been delivered.
    delivered: i64,
    /// Time of the pending progress request, and the store's revision when it was served.
    probe: Option<(Instant, i64)>,
    proof: Option<Proof>,
}

struct World {
    /// Range written by each revision. The first entry is revision 2.
    history: Vec<KeyRange>,
    writes: VecDeque<Write>,
    reads: VecDeque<Read>,
    watches: BTreeMap<usize, Watch>,
    cache: Cache,
    written: InvalidationFloors<i64>,
    unsure: InvalidationFloors<Instant>,
    shown: [i64; CLIENTS],
    /// Range and revision of each acknowledged write.
    acknowledged: Vec<(KeyRange, i64)>,
    now: Instant,
    seen: Seen,
}

/// Ranges that clients request: single keys, key ranges, and an open range.
fn queries() -> Vec<KeyRange> {
    let key = |n: u8| Bytes::from(vec![b'a' + n]);
    let mut ranges: Vec<KeyRange> = (0..KEYS)
        .map(|n| KeyRange::of(key(n), Bytes::new()))
        .collect();
    ranges.push(KeyRange::of(key(1), key(4)));
    ranges.push(KeyRange::of(key(0), key(3)));
    ranges.push(KeyRange::of(key(2), Bytes::from_static(&[0])));
    ranges
}

/// Returns the range of a write: one key, some consecutive keys, or all keys from one on.
fn target(draw: u8) -> KeyRange {
    let key = |n: u8| Bytes::from(vec![b'a' + n % KEYS]);
    match draw / KEYS % 8 {
        0 => KeyRange::of(key(draw), key(draw.wrapping_add(2))),
        1 => KeyRange::of(key(draw), Bytes::from_static(&[0])),
        _ => KeyRange::of(key(draw), Bytes::new()),
    }
}

impl World {
    fn new() -> World {
        World {
            history: Vec::new(),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            watches: BTreeMap::new(),
            cache: Cache::new(MOST_BYTES),
            // Small limits, so that floors are merged into one value now and then.
            written: InvalidationFloors::new(6, 100, 5),
            unsure: InvalidationFloors::new(6, 100, 5),
            shown: [0; CLIENTS],
            acknowledged: Vec::new(),
            now: Instant::now(),
            seen: Seen::default(),
        }
    }

    fn head(&self) -> i64 {
        self.history.len() as i64 + 1
    }

    /// Returns the last revision up to `at` that wrote to a range. A read at `at` shows its values.
    fn content(&self, range: &KeyRange, at: i64) -> i64 {
        let touches = |revision: &i64| overlaps(&self.history[(*revision - 2) as usize], range);
        (2..=at).rev().find(touches).unwrap_or(1)
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::WriteElsewhere(n) => self.history.push(target(n)),
            Op::Begin(n) => self.writes.push_back(Write {
                range: target(n),
                applied: None,
                abandoned: None,
            }),
            Op::Apply(n) => {
                let now = self.now;
                let next = self.history.len() as i64 + 2;
                if let Some(write) = pick(&mut self.writes, n)
                    && write.applied.is_none()
                    && write.abandoned.is_none_or(|until| now < until)
                {
                    write.applied = Some(next);
                    let range = write.range.clone();
                    self.history.push(range);
                }
            }
            Op::Acknowledge(n) => self.acknowledge(n),
            Op::GiveUp(n) => {
                let until = self.now + limits::CACHE_UNCERTAIN_TIME;
                if let Some(write) = pick(&mut self.writes, n)
                    && write.abandoned.is_none()
                {
                    write.abandoned = Some(until);
                    let range = write.range.clone();
                    self.unsure.raise(&range, until);
                    self.seen.unsure += 1;
                }
            }
            Op::Request(client, query) => self.request(client, query),
            Op::Serve(n, lag) => {
                let head = self.head();
                if let Some(read) = pick(&mut self.reads, n)
                    && read.served.is_none()
                {
                    let lag = if lag % 4 == 0 {
                        i64::from(lag / 4 % 6)
                    } else {
                        0
                    };
                    read.served = Some((head - lag).max(1));
                }
            }
            Op::Return(n) => self.receive(n),
            Op::StartProof(n, from) => self.start_proof(n, from),
            Op::Deliver(n) => {
                if let Some(query) = self.watched(n) {
                    self.deliver(query);
                }
            }
            Op::Probe(n) => {
                let (now, head) = (self.now, self.head());
                if let Some(watch) = self.watched(n).and_then(|q| self.watches.get_mut(&q)) {
                    watch.probe.get_or_insert((now, head));
                }
            }
            Op::Prove(n) => self.prove(n),
            Op::EndProof(n) => {
                if let Some(query) = self.watched(n) {
                    self.watches.remove(&query);
                    self.cache.set_proof(&name(query), None);
                }
            }
            Op::Evict(n) => {
                let query = usize::from(n) % queries().len();
                self.cache.remove(&name(query));
            }
            Op::Read(client, query) => {
                let before = self.reads.len();
                self.request(client, query);
                if self.reads.len() > before {
                    let head = self.head();
                    if let Some(read) = self.reads.back_mut() {
                        read.served = Some(head);
                    }
                    self.receive(before as u8);
                }
            }
            Op::Tick(a, b) => {
                let most = if b % 8 == 0 { 3_000 } else { 200 };
                self.now += Duration::from_millis(u64::from(a) * most / 255);
            }
        }
        let (entries, bytes) = (self.cache.len(), self.cache.bytes());
        assert!(bytes <= MOST_BYTES, "the cache exceeds its limit (R6)");
        let least = entries * size_of::<CachedResponse>();
        assert!(bytes >= least && (entries > 0 || bytes == 0), "miscounted");
    }

    /// Raises the floor before the writer gets its response.
    fn acknowledge(&mut self, n: u8) {
        let at = usize::from(n) % self.writes.len().max(1);
        let applied = self
            .writes
            .get(at)
            .is_some_and(|write| write.applied.is_some() && write.abandoned.is_none());
        if applied
            && let Some(write) = self.writes.remove(at)
            && let Some(revision) = write.applied
        {
            self.written.raise(&write.range, revision);
            self.acknowledged.push((write.range, revision));
            self.seen.acknowledged += 1;
        }
    }

    fn request(&mut self, client: u8, query: u8) {
        let (client, query) = (
            usize::from(client) % CLIENTS,
            usize::from(query) % queries().len(),
        );
        let standard = self.standard(client, query);
        let look = self.cache.lookup(&name(query), self.now, MAX_AGE / 4 * 3);
        if let Some(found) = look
            && let CacheDecision::Serve { revision, .. } = found.entry.decide(&ServeConditions {
                proof: found.proof,
                ..standard
            })
        {
            self.check_hit(client, query, &found.entry, revision);
            return;
        }
        self.seen.misses += 1;
        if self.reads.len() < 8 {
            self.reads.push_back(Read {
                client,
                query,
                sent: self.now,
                served: None,
            });
        }
    }

    fn standard(&self, client: usize, query: usize) -> ServeConditions {
        let range = &queries()[query];
        ServeConditions {
            now: self.now,
            max_age: MAX_AGE,
            written: self.written.highest(range),
            uncertain: self.unsure.highest(range),
            connection_floor: self.shown[client],
            proof: None,
        }
    }

    /// Checks a response from the cache against the rules.
    fn check_hit(&mut self, client: usize, query: usize, entry: &CachedResponse, revision: i64) {
        self.seen.hits += 1;
        let range = &queries()[query];
        assert_eq!(entry.range, *range, "the response to another request");
        assert!(revision >= self.shown[client], "the client goes back (R5)");
        self.shown[client] = revision;
        let shows = self.content(range, entry.revision);
        // The content is true at the revision of the response.
        assert_eq!(
            shows,
            self.content(range, revision),
            "not true at its revision"
        );
        self.seen.advanced += u64::from(revision > entry.revision);
        let acknowledged = self.acknowledged.iter();
        let newest = acknowledged.filter(|(touched, _)| overlaps(touched, range));
        let newest = newest.map(|(_, revision)| *revision).max().unwrap_or(1);
        assert!(revision >= newest, "older than an acknowledged write (R3)");
        // A response beyond the age limit needs a watch proof that is younger than the limit.
        if self.now - entry.sent >= MAX_AGE {
            self.seen.proved += 1;
            let watch = self.watches.get(&query).expect("a watch proves the entry");
            let proof = watch.proof.expect("a proof of the entry (R2)");
            assert!(self.now - proof.sent < MAX_AGE);
            // The content at the time of the proof, or a newer one.
            let proved = proof.through.max(entry.revision);
            assert_eq!(
                shows,
                self.content(range, proved),
                "older than its age limit (R2)"
            );
        }
        for write in &self.writes {
            if let Some(until) = write.abandoned
                && overlaps(&write.range, range)
            {
                assert!(
                    entry.sent >= until,
                    "an abandoned write may have been applied since (R3)"
                );
            }
        }
    }

    fn receive(&mut self, n: u8) {
        let at = usize::from(n) % self.reads.len().max(1);
        let served = self.reads.get(at).is_some_and(|read| read.served.is_some());
        if served
            && let Some(read) = self.reads.remove(at)
            && let Some(revision) = read.served
        {
            let entry = CachedResponse {
                range: queries()[read.query].clone(),
                requested_revision: None,
                revision,
                sent: read.sent,
                // Now and then a response that is large compared with the limit of the cache.
                response: Bytes::from(vec![0; (revision % 7) as usize * 150]),
                checked: AtomicU64::new(0),
            };
            self.cache.store(name(read.query), entry);
            // A response of etcd may go back in time; a cached response may not.
            self.shown[read.client] = self.shown[read.client].max(revision);
        }
    }

    fn start_proof(&mut self, n: u8, from: u8) {
        let query = usize::from(n) % queries().len();
        let head = self.head();
        let Some(found) = self.cache.lookup(&name(query), self.now, MAX_AGE) else {
            return;
        };
        if self.watches.contains_key(&query) {
            return;
        }
        let from = match from % 4 {
            0 => head + 1,
            1 => found.entry.revision,
            _ => found.entry.revision + 1,
        };
        let mut cover = WatchProof::new(queries()[query].clone());
        let live = FeedEvent::Live {
            from,
            frontier: from - 1,
            header: Header::default(),
        };
        assert_eq!(cover.proof(1, self.now), None, "a proof before the start");
        cover.apply(&live).expect("the watch starts");
        let watch = Watch {
            cover,
            delivered: from - 1,
            probe: None,
            proof: None,
        };
        self.watches.insert(query, watch);
    }

    fn watched(&self, n: u8) -> Option<usize> {
        let at = usize::from(n) % self.watches.len().max(1);
        self.watches.keys().nth(at).copied()
    }

    /// Delivers the next event, which raises the floor. A watch on a wider range reports other keys
    /// too.
    fn deliver(&mut self, query: usize) {
        let range = queries()[query].clone();
        let head = self.head();
        let Some(watch) = self.watches.get_mut(&query) else {
            return;
        };
        let touches = |revision: &i64| overlaps(&self.history[(*revision - 2) as usize], &range);
        let event = match (watch.delivered.max(1) + 1..=head).find(touches) {
            Some(revision) => {
                let batch = batch(&self.history[(revision - 2) as usize], revision);
                for (key, at) in watch.cover.writes(&batch) {
                    assert_eq!(at, revision);
                    let key = KeyRange::of(key.clone(), Bytes::new());
                    self.written.raise(&key, revision);
                }
                FeedEvent::Events(Arc::new(batch))
            }
            None => FeedEvent::Frontier(head.max(watch.delivered)),
        };
        watch.delivered = match &event {
            FeedEvent::Events(batch) => batch.frontier,
            _ => head.max(watch.delivered),
        };
        watch.cover.apply(&event).expect("the watch continues");
    }

    /// Handles the response to a progress request, which arrives after all earlier events.
    fn prove(&mut self, n: u8) {
        let Some(query) = self.watched(n) else {
            return;
        };
        let Some((sent, barrier)) = self.watches.get_mut(&query).and_then(|w| w.probe.take())
        else {
            return;
        };
        while self
            .watches
            .get(&query)
            .is_some_and(|watch| watch.delivered < barrier)
        {
            let watch = &self.watches[&query];
            assert_eq!(watch.cover.proof(barrier, sent), None, "events are missing");
            self.deliver(query);
        }
        if let Some(watch) = self.watches.get_mut(&query) {
            let proof = watch.cover.proof(barrier, sent).expect("all is delivered");
            watch.proof = Some(proof);
            self.cache.set_proof(&name(query), Some(proof));
        }
    }
}

/// Returns the events of a write. Every key exists.
fn batch(touched: &KeyRange, revision: i64) -> Batch {
    let keys = (0..KEYS).map(|n| Bytes::from(vec![b'a' + n]));
    let event = |key| Event {
        encoded: Bytes::new(),
        key,
        revision,
        delete: true,
        prev_kv: 0..0,
    };
    Batch {
        header: Header::default(),
        events: keys
            .filter(|key| touched.contains(key))
            .map(event)
            .collect(),
        frontier: revision,
        bytes: 0,
    }
}

fn overlaps(a: &KeyRange, b: &KeyRange) -> bool {
    let before = |a: &KeyRange, b: &KeyRange| a.end().is_some_and(|end| end <= b.start());
    !a.is_empty() && !b.is_empty() && !before(a, b) && !before(b, a)
}

fn name(query: usize) -> CacheKey {
    CacheKey {
        identity: 0,
        message: Bytes::from(vec![query as u8]),
    }
}

fn pick<T>(of: &mut VecDeque<T>, n: u8) -> Option<&mut T> {
    let at = usize::from(n) % of.len().max(1);
    of.get_mut(at)
}
