//! Fuzz body for the lease hub, against a naive model. In the model each client has its own
//! heartbeats in order. Each heartbeat gets one response, to an upstream heartbeat that was sent
//! after it arrived (L2).
//!
//! The input is a list of [`Op`]s, three bytes each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::limits;
use etcd_edge::state_machine::lease::{
    Action, ClientStreamEnd, ConnectionId, Counts, Hub, StreamId, TtlCheckResult, Unavailable,
};
use etcd_edge::wire::status::{Code, Status};

/// Maximum number of operations of one run.
const MAX_OPS: usize = 2_048;

/// Time to live of every lease, in seconds.
const TTL: u64 = 5;

/// One step of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// A client opens a stream.
    Open(u8),
    /// A client sends a heartbeat for a lease.
    Beat(u8, u8),
    /// A client sends heartbeats for several consecutive leases.
    Burst(u8, u8),
    /// A client closes its sending side.
    HalfClose(u8),
    /// A client closes its stream.
    Leave(u8),
    /// etcd responds to heartbeats of one upstream stream.
    Serve(u8, u8),
    /// etcd responds to all heartbeats of all upstream streams, up to the first that blocks.
    ServeAll,
    /// One requested upstream stream opens.
    Connect(u8),
    /// All requested upstream streams open.
    ConnectAll,
    /// An upstream stream ends.
    Lose(u8, u8),
    /// A lease changes its state.
    SetLease(u8, u8),
    /// etcd sends a response that does not belong to a pending heartbeat.
    Stray(u8),
    /// etcd responds to a TTL check.
    TtlResponse(u8),
    /// Time passes.
    Tick(u8, u8),
}

impl Op {
    /// Encoded length in bytes.
    pub(crate) const LEN: usize = 3;

    /// Decodes any three bytes. Operations that make progress are more frequent than failures.
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
            23 => Op::TtlResponse(b),
            24..=26 => Op::SetLease(a, b),
            27 if a % 8 == 0 => Op::Stray(b),
            _ => Op::Tick(a, b),
        }
    }
}

/// Counts of the events of a run, so that a test can check that the run was not idle.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) answers: u64,
    pub(crate) merged: u64,
    pub(crate) resent: u64,
    pub(crate) expired: u64,
    pub(crate) isolated: u64,
    pub(crate) examined: u64,
    pub(crate) refused: u64,
    pub(crate) given_up: u64,
    pub(crate) done: u64,
    /// Maximum number of upstream streams at a time.
    pub(crate) lanes: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Seen) {
        self.answers += more.answers;
        self.merged += more.merged;
        self.resent += more.resent;
        self.expired += more.expired;
        self.isolated += more.isolated;
        self.examined += more.examined;
        self.refused += more.refused;
        self.given_up += more.given_up;
        self.done += more.done;
        self.lanes = self.lanes.max(more.lanes);
    }
}

/// Decodes any bytes as operations and runs them.
pub(crate) fn run(data: &[u8]) {
    let ops = data
        .chunks_exact(Op::LEN)
        .map(|op| Op::decode([op[0], op[1], op[2]]));
    check(ops.take(MAX_OPS));
}

/// Runs the operations, then lets the hub finish and checks that every client received all its
/// responses.
pub(crate) fn check(ops: impl IntoIterator<Item = Op>) -> Seen {
    let mut world = World::new();
    for op in ops {
        world.step(op);
    }
    world.finish();
    world.seen
}

/// Reaction of etcd to a heartbeat for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Alive,
    /// Expired and not yet revoked: the heartbeat blocks its stream.
    Blocks,
    Revoked,
    /// The client may not write its keys: etcd ends the stream.
    Denied,
}

#[derive(Default)]
struct Client {
    peer: u64,
    half_closed: bool,
    /// Unanswered heartbeats of each lease, in order of arrival.
    beats: BTreeMap<i64, VecDeque<Beat>>,
}
struct Beat {
    moment: u64,
    at: Instant,
}

struct Lane {
    generation: u64,
    up: bool,
    /// Heartbeats without a response: the lease, and the moment of sending.
    in_flight: VecDeque<(i64, u64)>,
}

struct World {
    hub: Hub,
    now: Instant,
    /// Counter that increases with every event.
    moment: u64,
    leases: BTreeMap<i64, Lease>,
    clients: BTreeMap<StreamId, Client>,
    next_stream: u64,
    lanes: BTreeMap<u64, Lane>,
    /// First in-flight heartbeat of each abandoned stream: lane, generation and lease.
    abandoned: Vec<(u64, u64, i64)>,
    /// Leases with a pending TTL check, and the start of the check.
    exams: Vec<(i64, Instant)>,
    /// Heartbeat of each etcd response: the lease, and the moment of sending.
    answers: Vec<(i64, u64)>,
    /// Heartbeats received from clients.
    beats: usize,
    /// Heartbeats sent to etcd.
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
            abandoned: Vec::new(),
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
            Op::Lose(n, reason) => {
                if let Some(lane) = pick(&self.lanes, n) {
                    let reason = match reason % 4 {
                        0 => Unavailable::Token,
                        // A refusal at the start of the stream. Later the first heartbeat is the
                        // cause.
                        1 if self.lanes[&lane].in_flight.is_empty() => {
                            Unavailable::Refused(denied())
                        }
                        _ => Unavailable::Endpoint,
                    };
                    let generation = self.lanes[&lane].generation;
                    self.hub.lost(lane, generation, reason, self.now);
                }
            }
            Op::SetLease(lease, n) => {
                let lease = i64::from(lease % 48);
                let to = match n % 8 {
                    0 => Lease::Blocks,
                    1 => Lease::Revoked,
                    2 => Lease::Denied,
                    _ => Lease::Alive,
                };
                // The hub relies on this: a lease that cannot have expired yet does not block.
                if to != Lease::Blocks || !self.is_renewed(lease) {
                    self.leases.insert(lease, to);
                }
            }
            Op::Stray(n) if n % 2 == 0 => {
                // A response on an abandoned stream must have no effect.
                if let Some((lane, generation, lease)) = self.abandoned.pop() {
                    let message = Bytes::from_static(b"abandoned");
                    let ttl = Duration::from_secs(TTL);
                    let from = (lane, generation);
                    self.hub.answered(from, lease, ttl, &message, self.now);
                    self.hub
                        .lost(lane, generation, Unavailable::Endpoint, self.now);
                    assert_eq!(self.hub.next_action(), None);
                }
            }
            Op::Stray(n) => {
                if let Some(lane) = pick(&self.lanes, n) {
                    let generation = self.lanes[&lane].generation;
                    let message = Bytes::from_static(b"stray");
                    let ttl = Duration::from_secs(TTL);
                    self.hub
                        .answered((lane, generation), -1, ttl, &message, self.now);
                }
            }
            Op::TtlResponse(n) => self.respond_to_exam(n),
            Op::Tick(a, b) => {
                let most = if b % 8 == 0 { 12_000 } else { 400 };
                self.advance(Duration::from_millis(u64::from(a) * most / 255));
            }
        }
        self.settle();
    }

    /// Reports whether a lease may have been renewed so recently that it cannot have expired.
    fn is_renewed(&self, lease: i64) -> bool {
        // The model does not record the time of a renewal: a live lease may have just been renewed.
        self.leases.get(&lease).is_none_or(|l| *l == Lease::Alive)
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
        let peer = ConnectionId {
            worker: stream.worker,
            connection: client.peer,
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
        self.hub.heartbeat(stream, lease, self.now);
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

    /// Responds to one pending TTL check. Now and then etcd cannot determine the TTL.
    fn respond_to_exam(&mut self, n: u8) {
        let at = usize::from(n) % self.exams.len().max(1);
        if at >= self.exams.len() {
            return;
        }
        let (lease, started) = self.exams.remove(at);
        let outcome = match self.leases.get(&lease).copied().unwrap_or(Lease::Alive) {
            _ if n >= 250 => TtlCheckResult::Doubtful,
            Lease::Alive | Lease::Denied => TtlCheckResult::Alive(Duration::from_secs(TTL)),
            Lease::Revoked => TtlCheckResult::NotFound,
            Lease::Blocks => TtlCheckResult::Doubtful,
        };
        self.hub.ttl_checked(lease, outcome, started, self.now);
    }

    /// Responds to the heartbeats of a stream in order, until one blocks.
    fn serve(&mut self, id: u64, most: usize) {
        for _ in 0..most {
            let Some(lane) = self.lanes.get_mut(&id) else {
                return;
            };
            let Some((lease, moment)) = lane.in_flight.front().copied() else {
                return;
            };
            let ttl = match self.leases.get(&lease).copied().unwrap_or(Lease::Alive) {
                Lease::Alive => TTL,
                Lease::Revoked => 0,
                Lease::Blocks => return,
                Lease::Denied => {
                    let generation = lane.generation;
                    let reason = Unavailable::Refused(denied());
                    self.hub.lost(id, generation, reason, self.now);
                    self.perform();
                    return;
                }
            };
            lane.in_flight.pop_front();
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

    /// Advances the clock, and wakes the hub at each time that it requests.
    fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.hub.wake_at(self.now).filter(|at| *at <= until) {
            assert!(at > self.now, "the hub requests an immediate wake-up again");
            self.now = at;
            self.settle();
        }
        self.now = until;
    }

    fn settle(&mut self) {
        self.hub.settle(self.now);
        self.perform();
        let longest = limits::WAIT_FOR_ENDPOINT + limits::LEASE_CHECK_INTERVAL;
        let waits = |beat: &Beat| self.now - beat.at < longest;
        let mut beats = self
            .clients
            .values()
            .flat_map(|client| client.beats.values());
        assert!(
            beats.all(|beats| beats.front().is_none_or(waits)),
            "a heartbeat waits for longer than a call may (E4)"
        );
        let owed = |client: &Client| client.beats.values().any(|beats| !beats.is_empty());
        assert!(
            self.clients
                .values()
                .all(|client| !client.half_closed || owed(client)),
            "a stream is half-closed, fully answered and not ended (P4)"
        );
        let counts = self.hub.take_counts();
        self.counts.resent += counts.resent;
        self.counts.sent += counts.sent;
        self.seen.merged += counts.merged as u64;
        self.seen.resent += counts.resent as u64;
        self.seen.expired += counts.expired as u64;
        self.seen.isolated += counts.isolated as u64;
        assert_eq!(self.counts.sent, self.sent);
        assert!(
            self.sent <= self.beats + self.counts.resent,
            "more heartbeats were sent to etcd than received from clients (L1)"
        );
        assert_eq!(self.hub.client_streams(), self.clients.len());
        assert_eq!(self.hub.upstream_streams(), self.lanes.len());
        assert!(
            self.lanes.len() <= limits::LEASE_SHARED_STREAMS + limits::LEASE_ISOLATED_STREAMS + 1
        );
        self.seen.lanes = self.seen.lanes.max(self.lanes.len() as u64);
    }

    fn perform(&mut self) {
        while let Some(action) = self.hub.next_action() {
            self.moment += 1;
            match action {
                Action::Connect {
                    slot: lane,
                    generation,
                    ..
                } => {
                    let before = self.lanes.insert(
                        lane,
                        Lane {
                            generation,
                            up: false,
                            in_flight: VecDeque::new(),
                        },
                    );
                    if let Some(before) = before {
                        assert!(before.generation < generation);
                        self.abandon(lane, &before);
                    }
                }
                Action::Close { slot } => {
                    let before = self.lanes.remove(&slot).expect("an existing lane");
                    self.abandon(slot, &before);
                }
                Action::CheckTtl { lease } => {
                    self.seen.examined += 1;
                    self.exams.push((lease, self.now));
                    assert!(self.exams.len() <= limits::LEASE_TTL_CHECKS);
                }
                Action::Send { slot, leases } => self.send(slot, &leases),
                Action::Respond {
                    stream,
                    message,
                    count: times,
                } => self.answer(stream, &message, times),
                Action::End { stream, reason } => self.end(stream, &reason),
            }
        }
    }

    /// Records the first in-flight heartbeat of an abandoned stream.
    fn abandon(&mut self, id: u64, lane: &Lane) {
        let first = lane.in_flight.front().map(|(lease, _)| *lease);
        self.abandoned
            .extend(first.map(|lease| (id, lane.generation, lease)));
    }

    fn send(&mut self, id: u64, leases: &[i64]) {
        assert!(!leases.is_empty() && leases.len() <= limits::LEASE_BATCH);
        for lease in leases {
            let waits = |client: &Client| client.beats.get(lease).is_some_and(|b| !b.is_empty());
            assert!(
                self.clients.values().any(waits),
                "a heartbeat without a waiting client (L1)"
            );
            let mut in_flight = self.lanes.values().flat_map(|lane| &lane.in_flight);
            assert!(
                in_flight.all(|(each, _)| each != lease),
                "two heartbeats of one lease are in flight"
            );
            let lane = self.lanes.get_mut(&id).expect("an existing lane");
            assert!(lane.up, "the stream is not open");
            lane.in_flight.push_back((*lease, self.moment));
            self.sent += 1;
        }
        let batch = leases.iter().collect::<BTreeSet<_>>();
        assert_eq!(batch.len(), leases.len());
    }

    fn answer(&mut self, stream: StreamId, message: &Bytes, times: u32) {
        let client = self.clients.get_mut(&stream).expect("an open stream");
        let number = usize::from_be_bytes(message[..].try_into().unwrap());
        let (lease, moment) = self.answers[number];
        assert!(times > 0);
        let beats = client.beats.get_mut(&lease).expect("a requested lease");
        for _ in 0..times {
            let beat = beats
                .pop_front()
                .expect("no more answers than heartbeats (L2)");
            assert!(
                beat.moment < moment,
                "the response belongs to a heartbeat sent before this one arrived (L2)"
            );
        }
        // The remaining heartbeats arrived after the upstream heartbeat was sent.
        assert!(beats.front().is_none_or(|beat| beat.moment > moment));
        self.seen.answers += u64::from(times);
    }

    fn end(&mut self, stream: StreamId, why: &ClientStreamEnd) {
        let client = self.clients.remove(&stream).expect("an open stream");
        let mut left = client.beats.iter().filter(|(_, beats)| !beats.is_empty());
        match why {
            ClientStreamEnd::Done => {
                assert!(client.half_closed && left.next().is_none());
                self.seen.done += 1;
            }
            ClientStreamEnd::Unavailable => {
                let long = |beat: &Beat| self.now - beat.at >= limits::WAIT_FOR_ENDPOINT;
                let oldest = |(_, beats): (_, &VecDeque<Beat>)| beats.front().is_some_and(long);
                assert!(left.any(oldest), "reported too early (E4)");
                self.seen.given_up += 1;
            }
            ClientStreamEnd::Refused(status) => {
                assert_eq!(*status, denied());
                let denied = |(lease, _): (&i64, _)| self.leases.get(lease) == Some(&Lease::Denied);
                assert!(
                    left.any(denied),
                    "the refused lease is not of this stream (L4)"
                );
                self.seen.refused += 1;
            }
        }
    }

    /// Removes all blocks, and checks that every client gets its responses and that nothing
    /// remains.
    fn finish(&mut self) {
        for lease in self.leases.values_mut() {
            *lease = Lease::Alive;
        }
        for _ in 0..200 {
            self.connect_all();
            self.settle();
            self.serve_all();
            while !self.exams.is_empty() {
                self.respond_to_exam(0);
            }
            self.settle();
            self.advance(Duration::from_millis(50));
        }
        for (stream, client) in &self.clients {
            let left: usize = client.beats.values().map(VecDeque::len).sum();
            assert_eq!(left, 0, "{stream:?} never gets its responses");
        }
        self.advance(Duration::from_secs(30));
        assert!(
            self.lanes.len() <= 1,
            "unused upstream streams stay open (L1)"
        );
        for stream in self.clients.keys().copied().collect::<Vec<_>>() {
            self.clients.get_mut(&stream).unwrap().half_closed = true;
            self.hub.half_closed(stream, self.now);
            self.perform();
        }
        assert!(self.clients.is_empty(), "half-closed and not ended (P4)");
        self.advance(Duration::from_secs(60));
        assert!(self.hub.is_finished(), "{:?}", self.hub);
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
