//! The cache of reads with its floors, against the store's own history: what it gives was true, no
//! older than an acknowledged write, than its age, or than what the client was shown.
//!
//! The input is a list of [`Op`]s, three bytes each. Members lag, writes and reads overlap and come
//! back in any order or not at all, watches cover ranges and tell late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::limits;
use etcd_edge::machine::reads::cache::{Cache, Entry, Proof, Question, Standard, Verdict};
use etcd_edge::machine::reads::cover::Cover;
use etcd_edge::machine::reads::floors::Floors;
use etcd_edge::machine::watch::{Batch, Told};
use etcd_edge::wire::header::Header;
use etcd_edge::wire::range::KeyRange;
use etcd_edge::wire::watch::Event;

/// Most operations of one run.
const MAX_OPS: usize = 2_048;

const KEYS: u8 = 6;
const CLIENTS: usize = 3;
const MOST_BYTES: usize = 4_000;
const MAX_AGE: Duration = Duration::from_secs(1);

/// One step of the world.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// Somebody else writes keys, which this proxy does not see.
    Elsewhere(u8),
    /// A write through the proxy leaves for etcd.
    Begin(u8),
    /// etcd does one of those on their way.
    Do(u8),
    /// One that was done is answered.
    Answer(u8),
    /// One is given up: it was done, or will be, or not.
    GiveUp(u8),
    /// A client asks for a range.
    Ask(u8, u8),
    /// A member reads for one that is on its way, as late as it is.
    Serve(u8, u8),
    /// What was read comes back.
    Return(u8),
    /// A range is covered by a watch, from its answer on, or from earlier or later.
    Cover(u8, u8),
    /// A watch tells its next event.
    Tell(u8),
    /// A watch is asked how far it has come.
    Probe(u8),
    /// It has said it.
    Prove(u8),
    /// A watch ends.
    Uncover(u8),
    /// Answers go.
    Forget(u8),
    /// A client asks, and a member that is up to date answers at once where it has to.
    Read(u8, u8),
    /// Time passes.
    Tick(u8, u8),
}

impl Op {
    /// Bytes of one.
    pub(crate) const LEN: usize = 3;

    /// Any three bytes are one; what keeps things going is more frequent.
    pub(crate) fn decode([kind, a, b]: [u8; Op::LEN]) -> Op {
        match kind % 32 {
            0 => Op::Elsewhere(a),
            1..=2 => Op::Begin(a),
            3..=4 => Op::Do(a),
            5..=6 => Op::Answer(a),
            7 if a % 8 == 0 => Op::GiveUp(b),
            7..=11 => Op::Ask(a, b),
            12..=16 => Op::Read(a, b),
            17..=19 => Op::Serve(a, b),
            20..=22 => Op::Return(a),
            23 => Op::Cover(a, b),
            24..=25 => Op::Tell(a),
            26 => Op::Probe(a),
            27 => Op::Prove(a),
            28 if a % 4 == 0 => Op::Uncover(b),
            29 if a % 8 == 0 => Op::Forget(b),
            _ => Op::Tick(a, b),
        }
    }
}

/// What a run did, so that a test can tell that it was not idle.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) given: u64,
    /// Older than the age, and proved right by a watch.
    pub(crate) proved: u64,
    /// Given as true at a later revision than it was read at.
    pub(crate) advanced: u64,
    pub(crate) asked: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unsure: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Seen) {
        self.given += more.given;
        self.proved += more.proved;
        self.advanced += more.advanced;
        self.asked += more.asked;
        self.acknowledged += more.acknowledged;
        self.unsure += more.unsure;
    }
}

/// Any bytes are operations.
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
    /// Its revision, once it is done.
    done: Option<i64>,
    /// Nobody waits for it any more; it may be done until then.
    given_up: Option<Instant>,
}

/// A read on its way.
struct Read {
    client: usize,
    question: usize,
    asked: Instant,
    /// The revision at which a member read.
    served: Option<i64>,
}

/// A watch on a range.
struct Watch {
    cover: Cover,
    /// Events up to here have been told.
    told: i64,
    /// When it was asked how far it is, and how far the store was when it was served.
    probe: Option<(Instant, i64)>,
    proof: Option<Proof>,
}

struct World {
    /// The range of each revision's write; the first is revision 2.
    history: Vec<KeyRange>,
    writes: VecDeque<Write>,
    reads: VecDeque<Read>,
    covers: BTreeMap<usize, Watch>,
    cache: Cache,
    written: Floors<i64>,
    unsure: Floors<Instant>,
    shown: [i64; CLIENTS],
    /// Of acknowledged writes: the range and the revision.
    acknowledged: Vec<(KeyRange, i64)>,
    now: Instant,
    seen: Seen,
}

/// The ranges that are asked for: single keys, some in a row, all.
fn questions() -> Vec<KeyRange> {
    let key = |n: u8| Bytes::from(vec![b'a' + n]);
    let mut ranges: Vec<KeyRange> = (0..KEYS)
        .map(|n| KeyRange::of(key(n), Bytes::new()))
        .collect();
    ranges.push(KeyRange::of(key(1), key(4)));
    ranges.push(KeyRange::of(key(0), key(3)));
    ranges.push(KeyRange::of(key(2), Bytes::from_static(&[0])));
    ranges
}

/// What a write touches: a key, some in a row, or all from one on.
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
            covers: BTreeMap::new(),
            cache: Cache::new(MOST_BYTES),
            // Few, so that they become one value now and then.
            written: Floors::new(6, 100, 5),
            unsure: Floors::new(6, 100, 5),
            shown: [0; CLIENTS],
            acknowledged: Vec::new(),
            now: Instant::now(),
            seen: Seen::default(),
        }
    }

    fn head(&self) -> i64 {
        self.history.len() as i64 + 1
    }

    /// The last revision up to `at` that touched a range: what a read of it then shows.
    fn content(&self, range: &KeyRange, at: i64) -> i64 {
        let touches = |revision: &i64| overlaps(&self.history[(*revision - 2) as usize], range);
        (2..=at).rev().find(touches).unwrap_or(1)
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Elsewhere(n) => self.history.push(target(n)),
            Op::Begin(n) => self.writes.push_back(Write {
                range: target(n),
                done: None,
                given_up: None,
            }),
            Op::Do(n) => {
                let now = self.now;
                let next = self.history.len() as i64 + 2;
                if let Some(write) = pick(&mut self.writes, n)
                    && write.done.is_none()
                    && write.given_up.is_none_or(|until| now < until)
                {
                    write.done = Some(next);
                    let range = write.range.clone();
                    self.history.push(range);
                }
            }
            Op::Answer(n) => self.answer(n),
            Op::GiveUp(n) => {
                let until = self.now + limits::CACHE_UNSURE;
                if let Some(write) = pick(&mut self.writes, n)
                    && write.given_up.is_none()
                {
                    write.given_up = Some(until);
                    let range = write.range.clone();
                    self.unsure.raise(&range, until);
                    self.seen.unsure += 1;
                }
            }
            Op::Ask(client, question) => self.ask(client, question),
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
            Op::Return(n) => self.returned(n),
            Op::Cover(n, from) => self.cover(n, from),
            Op::Tell(n) => {
                if let Some(question) = self.covered(n) {
                    self.tell(question);
                }
            }
            Op::Probe(n) => {
                let (now, head) = (self.now, self.head());
                if let Some(cover) = self.covered(n).and_then(|q| self.covers.get_mut(&q)) {
                    cover.probe.get_or_insert((now, head));
                }
            }
            Op::Prove(n) => self.prove(n),
            Op::Uncover(n) => {
                if let Some(question) = self.covered(n) {
                    self.covers.remove(&question);
                    self.cache.prove(&name(question), None);
                }
            }
            Op::Forget(n) => {
                let question = usize::from(n) % questions().len();
                self.cache.remove(&name(question));
            }
            Op::Read(client, question) => {
                let before = self.reads.len();
                self.ask(client, question);
                if self.reads.len() > before {
                    let head = self.head();
                    if let Some(read) = self.reads.back_mut() {
                        read.served = Some(head);
                    }
                    self.returned(before as u8);
                }
            }
            Op::Tick(a, b) => {
                let most = if b % 8 == 0 { 3_000 } else { 200 };
                self.now += Duration::from_millis(u64::from(a) * most / 255);
            }
        }
        let (kept, bytes) = (self.cache.len(), self.cache.bytes());
        assert!(bytes <= MOST_BYTES, "too much is kept (R6)");
        let least = kept * size_of::<Entry>();
        assert!(bytes >= least && (kept > 0 || bytes == 0), "miscounted");
    }

    /// The floor rises before the writer is told.
    fn answer(&mut self, n: u8) {
        let at = usize::from(n) % self.writes.len().max(1);
        let answered = self
            .writes
            .get(at)
            .is_some_and(|write| write.done.is_some() && write.given_up.is_none());
        if answered
            && let Some(write) = self.writes.remove(at)
            && let Some(revision) = write.done
        {
            self.written.raise(&write.range, revision);
            self.acknowledged.push((write.range, revision));
            self.seen.acknowledged += 1;
        }
    }

    fn ask(&mut self, client: u8, question: u8) {
        let (client, question) = (
            usize::from(client) % CLIENTS,
            usize::from(question) % questions().len(),
        );
        let standard = self.standard(client, question);
        let look = self.cache.look(&name(question), self.now, MAX_AGE / 4 * 3);
        if let Some(found) = look
            && let Verdict::Give { revision, .. } = found.entry.judge(&Standard {
                proof: found.proof,
                ..standard
            })
        {
            self.given(client, question, &found.entry, revision);
            return;
        }
        self.seen.asked += 1;
        if self.reads.len() < 8 {
            self.reads.push_back(Read {
                client,
                question,
                asked: self.now,
                served: None,
            });
        }
    }

    fn standard(&self, client: usize, question: usize) -> Standard {
        let range = &questions()[question];
        Standard {
            now: self.now,
            max_age: MAX_AGE,
            written: self.written.highest(range),
            unsure: self.unsure.highest(range),
            shown: self.shown[client],
            proof: None,
        }
    }

    /// What the rules say of an answer that is given.
    fn given(&mut self, client: usize, question: usize, entry: &Entry, revision: i64) {
        self.seen.given += 1;
        let range = &questions()[question];
        assert_eq!(entry.range, *range, "another question's answer");
        assert!(revision >= self.shown[client], "the client goes back (R5)");
        self.shown[client] = revision;
        let shows = self.content(range, entry.revision);
        // True at the revision that it says.
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
        // Older than its age only while a watch has said so within it.
        if self.now - entry.asked >= MAX_AGE {
            self.seen.proved += 1;
            let cover = self.covers.get(&question).expect("nothing proves it right");
            let proof = cover.proof.expect("nothing proves it right (R2)");
            assert!(self.now - proof.asked < MAX_AGE);
            // What it was asked at that time, or something newer.
            let proved = proof.through.max(entry.revision);
            assert_eq!(
                shows,
                self.content(range, proved),
                "older than its age (R2)"
            );
        }
        for write in &self.writes {
            if let Some(until) = write.given_up
                && overlaps(&write.range, range)
            {
                assert!(
                    entry.asked >= until,
                    "a write may have been done since (R3)"
                );
            }
        }
    }

    fn returned(&mut self, n: u8) {
        let at = usize::from(n) % self.reads.len().max(1);
        let served = self.reads.get(at).is_some_and(|read| read.served.is_some());
        if served
            && let Some(read) = self.reads.remove(at)
            && let Some(revision) = read.served
        {
            let entry = Entry {
                range: questions()[read.question].clone(),
                at: None,
                revision,
                asked: read.asked,
                // Now and then one that is large beside what may be kept.
                answer: Bytes::from(vec![0; (revision % 7) as usize * 150]),
                checked: AtomicU64::new(0),
            };
            self.cache.store(name(read.question), entry);
            // etcd's own answer may go back; a cached one may not.
            self.shown[read.client] = self.shown[read.client].max(revision);
        }
    }

    fn cover(&mut self, n: u8, from: u8) {
        let question = usize::from(n) % questions().len();
        let head = self.head();
        let Some(found) = self.cache.look(&name(question), self.now, MAX_AGE) else {
            return;
        };
        if self.covers.contains_key(&question) {
            return;
        }
        let from = match from % 4 {
            0 => head + 1,
            1 => found.entry.revision,
            _ => found.entry.revision + 1,
        };
        let mut cover = Cover::new(questions()[question].clone());
        let live = Told::Live {
            from,
            through: from - 1,
            header: Header::default(),
        };
        assert_eq!(cover.proof(1, self.now), None, "nothing is known yet");
        cover.told(&live).expect("it begins");
        let watch = Watch {
            cover,
            told: from - 1,
            probe: None,
            proof: None,
        };
        self.covers.insert(question, watch);
    }

    fn covered(&self, n: u8) -> Option<usize> {
        let at = usize::from(n) % self.covers.len().max(1);
        self.covers.keys().nth(at).copied()
    }

    /// The next event: it raises the floor. A watch on more tells of other keys too.
    fn tell(&mut self, question: usize) {
        let range = questions()[question].clone();
        let head = self.head();
        let Some(watch) = self.covers.get_mut(&question) else {
            return;
        };
        let touches = |revision: &i64| overlaps(&self.history[(*revision - 2) as usize], &range);
        let told = match (watch.told.max(1) + 1..=head).find(touches) {
            Some(revision) => {
                let batch = batch(&self.history[(revision - 2) as usize], revision);
                for (key, at) in watch.cover.writes(&batch) {
                    assert_eq!(at, revision);
                    let key = KeyRange::of(key.clone(), Bytes::new());
                    self.written.raise(&key, revision);
                }
                Told::Events(Arc::new(batch))
            }
            None => Told::Through(head.max(watch.told)),
        };
        watch.told = match &told {
            Told::Events(batch) => batch.through,
            _ => head.max(watch.told),
        };
        watch.cover.told(&told).expect("it goes on");
    }

    /// An answer to a probe comes behind all events up to it.
    fn prove(&mut self, n: u8) {
        let Some(question) = self.covered(n) else {
            return;
        };
        let Some((asked, barrier)) = self.covers.get_mut(&question).and_then(|c| c.probe.take())
        else {
            return;
        };
        while self
            .covers
            .get(&question)
            .is_some_and(|watch| watch.told < barrier)
        {
            let watch = &self.covers[&question];
            assert_eq!(watch.cover.proof(barrier, asked), None, "not all is told");
            self.tell(question);
        }
        if let Some(watch) = self.covers.get_mut(&question) {
            let proof = watch.cover.proof(barrier, asked).expect("all is told");
            watch.proof = Some(proof);
            self.cache.prove(&name(question), Some(proof));
        }
    }
}

/// What a watch tells of a write: all keys are there.
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
        through: revision,
        bytes: 0,
    }
}

fn overlaps(a: &KeyRange, b: &KeyRange) -> bool {
    let before = |a: &KeyRange, b: &KeyRange| a.end().is_some_and(|end| end <= b.start());
    !a.is_empty() && !b.is_empty() && !before(a, b) && !before(b, a)
}

fn name(question: usize) -> Question {
    Question {
        identity: 0,
        message: Bytes::from(vec![question as u8]),
    }
}

fn pick<T>(of: &mut VecDeque<T>, n: u8) -> Option<&mut T> {
    let at = usize::from(n) % of.len().max(1);
    of.get_mut(at)
}
