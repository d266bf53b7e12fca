//! The lease hub against a naive model: each client has its own heartbeats, in its own order, and
//! each of them wants one answer, of a heartbeat that left after it came.
//!
//! The input is a list of [`Op`]s, three bytes each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::limits;
use etcd_edge::machine::lease::{Action, Counts, End, Examined, Hub, Lost, PeerId, StreamId};
use etcd_edge::wire::status::{Code, Status};

/// Most operations of one run.
const MAX_OPS: usize = 2_048;

/// Time to live of every lease, in seconds.
const TTL: u64 = 5;

/// One step of the world.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// A client opens a stream.
    Open(u8),
    /// A client's heartbeat for a lease.
    Beat(u8, u8),
    /// Several of one client's for leases in a row.
    Burst(u8, u8),
    /// A client sends no more.
    HalfClose(u8),
    /// A client leaves.
    Leave(u8),
    /// etcd works off a lane.
    Serve(u8, u8),
    /// etcd works off all lanes, as far as it can.
    ServeAll,
    /// A stream that was asked for opens.
    Connect(u8),
    /// All of them do.
    ConnectAll,
    /// A stream ends.
    Lose(u8, u8),
    /// A lease becomes something else.
    Turn(u8, u8),
    /// etcd answers what was not asked.
    Nonsense(u8),
    /// etcd says how long a lease has.
    Word(u8),
    /// Time passes.
    Tick(u8, u8),
}

impl Op {
    /// Bytes of one.
    pub(crate) const LEN: usize = 3;

    /// Any three bytes are one; what keeps things going is more frequent than what breaks them.
    pub(crate) fn decode([kind, a, b]: [u8; Op::LEN]) -> Op {
        match kind % 32 {
            0..=1 => Op::Open(a),
            2..=9 => Op::Beat(a, b),
            10..=11 => Op::Burst(a, b),
            12 => Op::HalfClose(a),
            13 => Op::Leave(a),
            14..=17 => Op::Serve(a, b),
            18..=19 => Op::ServeAll,
            20 => Op::Connect(a),
            21..=22 => Op::ConnectAll,
            23 if a % 2 == 0 => Op::Lose(a, b),
            23 => Op::Word(b),
            24..=26 => Op::Turn(a, b),
            27 if a % 8 == 0 => Op::Nonsense(b),
            _ => Op::Tick(a, b),
        }
    }
}

/// What a run did, so that a test can tell that it was not idle.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) answers: u64,
    pub(crate) merged: u64,
    pub(crate) resent: u64,
    pub(crate) expired: u64,
    pub(crate) aside: u64,
    pub(crate) examined: u64,
    pub(crate) refused: u64,
    pub(crate) given_up: u64,
    pub(crate) done: u64,
    /// Most lanes at a time.
    pub(crate) lanes: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Seen) {
        self.answers += more.answers;
        self.merged += more.merged;
        self.resent += more.resent;
        self.expired += more.expired;
        self.aside += more.aside;
        self.examined += more.examined;
        self.refused += more.refused;
        self.given_up += more.given_up;
        self.done += more.done;
        self.lanes = self.lanes.max(more.lanes);
    }
}

/// Any bytes are operations.
pub(crate) fn run(data: &[u8]) {
    let ops = data
        .chunks_exact(Op::LEN)
        .map(|op| Op::decode([op[0], op[1], op[2]]));
    check(ops.take(MAX_OPS));
}

/// Runs the operations, then lets all come to rest and looks whether everybody got everything.
pub(crate) fn check(ops: impl IntoIterator<Item = Op>) -> Seen {
    let mut world = World::new();
    for op in ops {
        world.step(op);
    }
    world.rest();
    world.seen
}

/// What etcd does with a heartbeat for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Lives,
    /// It has expired and is not revoked: the stream stands still.
    Blocks,
    Gone,
    /// Its keys may not be written: the stream ends.
    Denied,
}

#[derive(Default)]
struct Client {
    peer: u64,
    half_closed: bool,
    /// By lease: when each heartbeat came that is not answered.
    beats: BTreeMap<i64, VecDeque<Beat>>,
}

struct Beat {
    moment: u64,
    at: Instant,
}

struct Lane {
    generation: u64,
    up: bool,
    /// Sent and not answered: the lease, and when.
    way: VecDeque<(i64, u64)>,
}

struct World {
    hub: Hub,
    now: Instant,
    /// Counts everything that happens.
    moment: u64,
    leases: BTreeMap<i64, Lease>,
    clients: BTreeMap<StreamId, Client>,
    next_stream: u64,
    lanes: BTreeMap<u64, Lane>,
    /// The first on its way on streams that were given up.
    bygone: Vec<(u64, u64, i64)>,
    /// Leases that etcd is asked about, and since when.
    exams: Vec<(i64, Instant)>,
    /// What etcd's answers were to: the lease, and when its heartbeat was sent.
    answers: Vec<(i64, u64)>,
    /// Heartbeats of clients, and to etcd.
    beats: usize,
    sent: usize,
    counts: Counts,
    seen: Seen,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        World {
            hub: Hub::new(now),
            now,
            moment: 0,
            leases: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_stream: 0,
            lanes: BTreeMap::new(),
            bygone: Vec::new(),
            exams: Vec::new(),
            answers: Vec::new(),
            beats: 0,
            sent: 0,
            counts: Counts::default(),
            seen: Seen::default(),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Open(peer) => self.open(peer),
            Op::Beat(client, lease) => self.beat(client, i64::from(lease % 48)),
            Op::Burst(client, first) => {
                for n in 0..i64::from(client % 16) {
                    self.beat(client, (i64::from(first) + n) % 48);
                }
            }
            Op::HalfClose(n) => {
                if let Some(stream) = self.client(n) {
                    let client = self.clients.get_mut(&stream).unwrap();
                    if !std::mem::replace(&mut client.half_closed, true) {
                        self.hub.half_closed(stream, self.now);
                    }
                }
            }
            Op::Leave(n) => {
                if let Some(stream) = self.client(n) {
                    self.clients.remove(&stream);
                    self.hub.closed(stream, self.now);
                }
            }
            Op::Serve(lane, n) => {
                if let Some(lane) = pick(&self.lanes, lane) {
                    self.serve(lane, usize::from(n % 8) + 1);
                }
            }
            Op::ServeAll => self.serve_all(),
            Op::Connect(n) => {
                if let Some(lane) = pick(&self.lanes, n) {
                    self.connect(lane);
                }
            }
            Op::ConnectAll => self.connect_all(),
            Op::Lose(n, why) => {
                if let Some(lane) = pick(&self.lanes, n) {
                    let why = match why % 4 {
                        0 => Lost::Token,
                        // At its beginning, before anything is asked; else it is the first's fault.
                        1 if self.lanes[&lane].way.is_empty() => Lost::Refused(denied()),
                        _ => Lost::Endpoint,
                    };
                    let generation = self.lanes[&lane].generation;
                    self.hub.lost(lane, generation, why, self.now);
                }
            }
            Op::Turn(lease, n) => {
                let lease = i64::from(lease % 48);
                let to = match n % 8 {
                    0 => Lease::Blocks,
                    1 => Lease::Gone,
                    2 => Lease::Denied,
                    _ => Lease::Lives,
                };
                // One that may not have expired yet does not block: what the hub relies on.
                if to != Lease::Blocks || !self.is_renewed(lease) {
                    self.leases.insert(lease, to);
                }
            }
            Op::Nonsense(n) if n % 2 == 0 => {
                // Of a stream that was given up: nothing may come of it.
                if let Some((lane, generation, lease)) = self.bygone.pop() {
                    let message = Bytes::from_static(b"bygone");
                    let ttl = Duration::from_secs(TTL);
                    let from = (lane, generation);
                    self.hub.answered(from, lease, ttl, &message, self.now);
                    self.hub.lost(lane, generation, Lost::Endpoint, self.now);
                    assert_eq!(self.hub.next_action(), None);
                }
            }
            Op::Nonsense(n) => {
                if let Some(lane) = pick(&self.lanes, n) {
                    let generation = self.lanes[&lane].generation;
                    let message = Bytes::from_static(b"nonsense");
                    let ttl = Duration::from_secs(TTL);
                    self.hub
                        .answered((lane, generation), -1, ttl, &message, self.now);
                }
            }
            Op::Word(n) => self.word(n),
            Op::Tick(a, b) => {
                let most = if b % 8 == 0 { 12_000 } else { 400 };
                self.pass(Duration::from_millis(u64::from(a) * most / 255));
            }
        }
        self.settle();
    }

    /// Whether it was renewed so lately that it cannot have expired.
    fn is_renewed(&self, lease: i64) -> bool {
        // The world does not say when: whoever lives now may have been renewed just now.
        self.leases.get(&lease).is_none_or(|l| *l == Lease::Lives)
            && self.answers.iter().any(|(each, _)| *each == lease)
    }

    fn client(&self, n: u8) -> Option<StreamId> {
        pick(&self.clients, n)
    }

    fn open(&mut self, peer: u8) {
        if self.clients.len() >= 40 {
            return;
        }
        self.next_stream += 1;
        let stream = StreamId {
            worker: u32::from(peer % 2),
            stream: self.next_stream,
        };
        let client = Client {
            peer: u64::from(peer % 6),
            ..Client::default()
        };
        let peer = PeerId {
            worker: stream.worker,
            peer: client.peer,
        };
        self.clients.insert(stream, client);
        self.hub.opened(stream, peer);
    }

    fn beat(&mut self, client: u8, lease: i64) {
        let Some(stream) = self.client(client) else {
            return;
        };
        let client = self.clients.get_mut(&stream).unwrap();
        if client.half_closed {
            return;
        }
        self.moment += 1;
        self.beats += 1;
        let beat = Beat {
            moment: self.moment,
            at: self.now,
        };
        client.beats.entry(lease).or_default().push_back(beat);
        self.hub.beat(stream, lease, self.now);
    }

    fn connect(&mut self, id: u64) {
        let lane = self.lanes.get_mut(&id).unwrap();
        if !std::mem::replace(&mut lane.up, true) {
            self.hub.connected(id, lane.generation, self.now);
        }
    }

    fn connect_all(&mut self) {
        for lane in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.connect(lane);
        }
    }

    /// One of the leases that were asked about; now and then nobody can say.
    fn word(&mut self, n: u8) {
        let at = usize::from(n) % self.exams.len().max(1);
        if at >= self.exams.len() {
            return;
        }
        let (lease, asked) = self.exams.remove(at);
        let word = match self.leases.get(&lease).copied().unwrap_or(Lease::Lives) {
            _ if n >= 250 => Examined::Doubtful,
            Lease::Lives | Lease::Denied => Examined::Lives(Duration::from_secs(TTL)),
            Lease::Gone => Examined::Unknown,
            Lease::Blocks => Examined::Doubtful,
        };
        self.hub.examined(lease, word, asked, self.now);
    }

    /// One answer after the other, until one blocks.
    fn serve(&mut self, id: u64, most: usize) {
        for _ in 0..most {
            let Some(lane) = self.lanes.get_mut(&id) else {
                return;
            };
            let Some((lease, moment)) = lane.way.front().copied() else {
                return;
            };
            let ttl = match self.leases.get(&lease).copied().unwrap_or(Lease::Lives) {
                Lease::Lives => TTL,
                Lease::Gone => 0,
                Lease::Blocks => return,
                Lease::Denied => {
                    let generation = lane.generation;
                    let why = Lost::Refused(denied());
                    self.hub.lost(id, generation, why, self.now);
                    self.perform();
                    return;
                }
            };
            lane.way.pop_front();
            let message = Bytes::from(self.answers.len().to_be_bytes().to_vec());
            self.answers.push((lease, moment));
            let from = (id, lane.generation);
            let ttl = Duration::from_secs(ttl);
            self.hub.answered(from, lease, ttl, &message, self.now);
            self.perform();
        }
    }

    fn serve_all(&mut self) {
        for lane in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.serve(lane, usize::MAX);
        }
    }

    /// The hub is told the time whenever it wants to know.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.hub.wake_at(self.now).filter(|at| *at <= until) {
            assert!(at > self.now, "it wants to be woken at once, again");
            self.now = at;
            self.settle();
        }
        self.now = until;
    }

    fn settle(&mut self) {
        self.hub.settle(self.now);
        self.perform();
        let longest = limits::WAIT_FOR_ENDPOINT + limits::LEASE_LOOK;
        let waits = |beat: &Beat| self.now - beat.at < longest;
        let mut beats = self
            .clients
            .values()
            .flat_map(|client| client.beats.values());
        assert!(
            beats.all(|beats| beats.front().is_none_or(waits)),
            "waits for longer than calls do (E4)"
        );
        let owed = |client: &Client| client.beats.values().any(|beats| !beats.is_empty());
        assert!(
            self.clients
                .values()
                .all(|client| !client.half_closed || owed(client)),
            "half-closed, answered and not ended (P4)"
        );
        let counts = self.hub.take_counts();
        self.counts.resent += counts.resent;
        self.counts.sent += counts.sent;
        self.seen.merged += counts.merged as u64;
        self.seen.resent += counts.resent as u64;
        self.seen.expired += counts.expired as u64;
        self.seen.aside += counts.aside as u64;
        assert_eq!(self.counts.sent, self.sent);
        assert!(
            self.sent <= self.beats + self.counts.resent,
            "more went to etcd than clients have sent (L1)"
        );
        assert_eq!(self.hub.c_streams(), self.clients.len());
        assert_eq!(self.hub.s_streams(), self.lanes.len());
        assert!(self.lanes.len() <= limits::LEASE_LANES + limits::LEASE_APART_LANES + 1);
        self.seen.lanes = self.seen.lanes.max(self.lanes.len() as u64);
    }

    fn perform(&mut self) {
        while let Some(action) = self.hub.next_action() {
            self.moment += 1;
            match action {
                Action::Connect {
                    lane, generation, ..
                } => {
                    let before = self.lanes.insert(
                        lane,
                        Lane {
                            generation,
                            up: false,
                            way: VecDeque::new(),
                        },
                    );
                    if let Some(before) = before {
                        assert!(before.generation < generation);
                        self.bygone(lane, &before);
                    }
                }
                Action::Close { lane } => {
                    let before = self.lanes.remove(&lane).expect("a lane that is there");
                    self.bygone(lane, &before);
                }
                Action::Examine { lease } => {
                    self.seen.examined += 1;
                    self.exams.push((lease, self.now));
                    assert!(self.exams.len() <= limits::LEASE_EXAMS);
                }
                Action::Send { lane, leases } => self.send(lane, &leases),
                Action::Answer {
                    stream,
                    message,
                    times,
                } => self.answer(stream, &message, times),
                Action::End { stream, why } => self.end(stream, &why),
            }
        }
    }

    /// What a stream that is given up had on its way.
    fn bygone(&mut self, id: u64, lane: &Lane) {
        let first = lane.way.front().map(|(lease, _)| *lease);
        self.bygone
            .extend(first.map(|lease| (id, lane.generation, lease)));
    }

    fn send(&mut self, id: u64, leases: &[i64]) {
        assert!(!leases.is_empty() && leases.len() <= limits::LEASE_BATCH);
        for lease in leases {
            let waits = |client: &Client| client.beats.get(lease).is_some_and(|b| !b.is_empty());
            assert!(
                self.clients.values().any(waits),
                "a heartbeat that nobody waits for (L1)"
            );
            let mut ways = self.lanes.values().flat_map(|lane| &lane.way);
            assert!(
                ways.all(|(each, _)| each != lease),
                "two heartbeats of one lease are on their way"
            );
            let lane = self.lanes.get_mut(&id).expect("a lane that is there");
            assert!(lane.up, "a stream that is not open");
            lane.way.push_back((*lease, self.moment));
            self.sent += 1;
        }
        let batch = leases.iter().collect::<BTreeSet<_>>();
        assert_eq!(batch.len(), leases.len());
    }

    fn answer(&mut self, stream: StreamId, message: &Bytes, times: u32) {
        let client = self
            .clients
            .get_mut(&stream)
            .expect("a stream that is open");
        let number = usize::from_be_bytes(message[..].try_into().unwrap());
        let (lease, moment) = self.answers[number];
        assert!(times > 0);
        let beats = client.beats.get_mut(&lease).expect("one that was asked");
        for _ in 0..times {
            let beat = beats
                .pop_front()
                .expect("no more answers than heartbeats (L2)");
            assert!(
                beat.moment < moment,
                "answered by a heartbeat that left before it came (L2)"
            );
        }
        // Whatever is left came after that one left.
        assert!(beats.front().is_none_or(|beat| beat.moment > moment));
        self.seen.answers += u64::from(times);
    }

    fn end(&mut self, stream: StreamId, why: &End) {
        let client = self.clients.remove(&stream).expect("a stream that is open");
        let mut left = client.beats.iter().filter(|(_, beats)| !beats.is_empty());
        match why {
            End::Done => {
                assert!(client.half_closed && left.next().is_none());
                self.seen.done += 1;
            }
            End::Unavailable => {
                let long = |beat: &Beat| self.now - beat.at >= limits::WAIT_FOR_ENDPOINT;
                let oldest = |(_, beats): (_, &VecDeque<Beat>)| beats.front().is_some_and(long);
                assert!(left.any(oldest), "told so before its time (E4)");
                self.seen.given_up += 1;
            }
            End::Refused(status) => {
                assert_eq!(*status, denied());
                let denied = |(lease, _): (&i64, _)| self.leases.get(lease) == Some(&Lease::Denied);
                assert!(left.any(denied), "not the one who is refused (L4)");
                self.seen.refused += 1;
            }
        }
    }

    /// Nothing blocks any more: everybody gets what is still owed, and then nothing is left.
    fn rest(&mut self) {
        for lease in self.leases.values_mut() {
            *lease = Lease::Lives;
        }
        for _ in 0..200 {
            self.connect_all();
            self.settle();
            self.serve_all();
            while !self.exams.is_empty() {
                self.word(0);
            }
            self.settle();
            self.pass(Duration::from_millis(50));
        }
        for (stream, client) in &self.clients {
            let left: usize = client.beats.values().map(VecDeque::len).sum();
            assert_eq!(left, 0, "{stream:?} waits for ever");
        }
        self.pass(Duration::from_secs(30));
        assert!(self.lanes.len() <= 1, "lanes that nobody needs stay (L1)");
        for stream in self.clients.keys().copied().collect::<Vec<_>>() {
            self.clients.get_mut(&stream).unwrap().half_closed = true;
            self.hub.half_closed(stream, self.now);
            self.perform();
        }
        assert!(self.clients.is_empty(), "half-closed and not ended (P4)");
        self.pass(Duration::from_secs(60));
        assert!(self.hub.is_over(), "{:?}", self.hub);
        assert_eq!(self.hub.wake_at(self.now), None);
    }
}

fn denied() -> Status {
    Status::new(Code::PermissionDenied, "etcdserver: permission denied")
}

fn pick<K: Copy, V>(of: &BTreeMap<K, V>, n: u8) -> Option<K> {
    let at = usize::from(n) % of.len().max(1);
    of.keys().nth(at).copied()
}
