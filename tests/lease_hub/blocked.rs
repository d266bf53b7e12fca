//! A lease hub and a simulated etcd in simulated time: how long heartbeats wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::limits;
use etcd_edge::state_machine::lease::{Action, ConnectionId, Hub, StreamId, TtlCheckResult};

/// Duration of the simulation.
const RUN: Duration = Duration::from_secs(30);

/// Time to live of every lease.
const TTL: Duration = Duration::from_secs(3);

/// Leases from this id on expire: each is renewed once in time, and again after it expired. It is
/// revoked late.
const EXPIRED: i64 = 1_000_000;

/// Time etcd takes to revoke an expired lease. A heartbeat for it blocks that long.
const BLOCKS: Duration = Duration::from_secs(5);

/// Returns the longest wait and the maximum number of upstream streams.
///
/// `leases` leases are renewed each second by the clients of ten connections, one by one or all
/// `together`. With `trouble`, another client renews expired leases.
pub(crate) fn longest_wait(leases: usize, trouble: bool, together: bool) -> (Duration, usize) {
    let mut sim = Simulation::new(Duration::from_micros(200));
    sim.leases(leases, together);
    if trouble {
        sim.plan(Duration::from_millis(500), Event::RenewInTime(0));
    }
    sim.run();
    (sim.longest, sim.most_streams)
}

/// Returns the longest wait of clients that begin to renew a lease at any time, while each of
/// `expired` connections renews an expired lease.
pub(crate) fn newcomers(expired: usize) -> Duration {
    let mut sim = Simulation::new(Duration::from_micros(200));
    for n in 0..expired as i64 {
        let lease = EXPIRED + n;
        sim.open(lease, 1_000 + n as u64);
        sim.plan(Duration::from_millis(500), Event::RenewExpired(n));
    }
    for n in 0..100 {
        sim.open(n, n as u64);
        sim.plan(Duration::from_millis(40 * n as u64), Event::Heartbeat(n));
    }
    sim.run();
    sim.longest
}

/// Returns the longest wait and the maximum number of upstream streams when etcd takes `each` per
/// heartbeat.
pub(crate) fn slow_etcd(leases: usize, each: Duration) -> (Duration, usize) {
    let mut sim = Simulation::new(each);
    sim.leases(leases, false);
    sim.run();
    (sim.longest, sim.most_streams)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client renews its lease.
    Heartbeat(i64),
    /// A client renews a lease before it expires. The next such lease follows soon.
    RenewInTime(i64),
    /// The client renews the same lease after it expired.
    RenewExpired(i64),
    /// etcd has processed the first heartbeat of a stream.
    Processed(u64, u64),
    /// etcd returns the TTL of a lease.
    TtlResponse(i64),
}

struct EtcdStream {
    generation: u64,
    queue: VecDeque<i64>,
}

struct Simulation {
    hub: Hub,
    begun: Instant,
    now: Duration,
    /// Time etcd takes for one heartbeat.
    each: Duration,
    plan: BinaryHeap<Reverse<(Duration, Event)>>,
    streams: HashMap<u64, EtcdStream>,
    /// Arrival time of each lease's unanswered heartbeat.
    waits: HashMap<i64, Duration>,
    /// Time at which each expired lease is revoked.
    revoked: HashMap<i64, Duration>,
    longest: Duration,
    most_streams: usize,
}

fn stream(lease: i64) -> StreamId {
    StreamId {
        worker: 0,
        stream: lease as u64,
    }
}

impl Simulation {
    fn new(each: Duration) -> Simulation {
        let begun = Instant::now();
        Simulation {
            hub: Hub::new(begun),
            begun,
            now: Duration::ZERO,
            each,
            plan: BinaryHeap::new(),
            streams: HashMap::new(),
            waits: HashMap::new(),
            revoked: HashMap::new(),
            longest: Duration::ZERO,
            most_streams: 0,
        }
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.plan.push(Reverse((self.now + after, event)));
    }

    /// Adds leases, each on its own client stream; spread over a second unless `together`.
    fn leases(&mut self, count: usize, together: bool) {
        for n in 0..count {
            let lease = n as i64;
            self.open(lease, n as u64 % 10);
            let first = Duration::from_secs(1) * n as u32 / count as u32;
            let first = if together { Duration::ZERO } else { first };
            self.plan(first, Event::Heartbeat(lease));
        }
    }

    fn open(&mut self, lease: i64, peer: u64) {
        self.hub.opened(
            stream(lease),
            ConnectionId {
                worker: 0,
                connection: peer,
            },
        );
    }

    fn at(&self) -> Instant {
        self.begun + self.now
    }

    fn run(&mut self) {
        while self.now < RUN {
            let next = self.plan.peek().map(|Reverse((at, _))| *at);
            let wake = self.hub.wake_at(self.at()).map(|at| at - self.begun);
            match (next, wake) {
                (Some(next), Some(wake)) if wake < next => self.now = wake.max(self.now),
                (Some(next), _) => {
                    self.now = next;
                    while self.plan.peek().is_some_and(|Reverse((at, _))| *at == next)
                        && let Some(Reverse((_, event))) = self.plan.pop()
                    {
                        self.process(event);
                    }
                }
                (None, Some(wake)) => self.now = wake.max(self.now),
                (None, None) => return,
            }
            self.hub.settle(self.at());
            self.perform();
            self.most_streams = self.most_streams.max(self.streams.len());
        }
    }

    fn process(&mut self, event: Event) {
        match event {
            Event::Heartbeat(lease) => {
                // Without a response to the previous heartbeat, that one counts.
                self.waits.entry(lease).or_insert(self.now);
                self.hub.heartbeat(stream(lease), lease, self.at());
                self.plan(Duration::from_secs(1), Event::Heartbeat(lease));
            }
            Event::RenewInTime(n) => {
                let lease = EXPIRED + n;
                self.open(lease, 77);
                self.hub.heartbeat(stream(lease), lease, self.at());
                // The same time as the other heartbeats, if those arrive together.
                self.plan(TTL + Duration::from_millis(500), Event::RenewExpired(n));
                self.plan(Duration::from_millis(200), Event::RenewInTime(n + 1));
            }
            Event::RenewExpired(n) => {
                let lease = EXPIRED + n;
                self.revoked.insert(lease, self.now + BLOCKS);
                self.hub.heartbeat(stream(lease), lease, self.at());
            }
            Event::Processed(stream, generation) => self.processed(stream, generation),
            Event::TtlResponse(lease) => {
                let sent = self.at() - self.each;
                let result = match self.revoked.get(&lease) {
                    None => TtlCheckResult::Alive(TTL),
                    Some(at) if *at > self.now => TtlCheckResult::Doubtful,
                    Some(_) => TtlCheckResult::NotFound,
                };
                self.hub.ttl_checked(lease, result, sent, self.at());
            }
        }
    }

    /// Responds to the first heartbeat of a stream, unless it blocks.
    fn processed(&mut self, id: u64, generation: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.generation != generation {
            return;
        }
        let Some(lease) = stream.queue.front().copied() else {
            return;
        };
        let ttl = match self.revoked.get(&lease) {
            Some(at) if *at > self.now => {
                let rest = *at - self.now;
                self.plan(rest, Event::Processed(id, generation));
                return;
            }
            Some(_) => Duration::ZERO,
            None => TTL,
        };
        stream.queue.pop_front();
        if !stream.queue.is_empty() {
            self.plan(self.each, Event::Processed(id, generation));
        }
        let at = self.at();
        self.hub
            .answered((id, generation), lease, ttl, &Bytes::new(), at);
    }

    fn perform(&mut self) {
        while let Some(action) = self.hub.next_action() {
            match action {
                Action::Connect {
                    slot: lane,
                    generation,
                    ..
                } => {
                    let queue = VecDeque::new();
                    self.streams.insert(lane, EtcdStream { generation, queue });
                    let at = self.at();
                    self.hub.connected(lane, generation, at);
                    self.hub.settle(at);
                }
                Action::Close { slot } => {
                    self.streams.remove(&slot);
                }
                Action::Send { slot: id, leases } => {
                    assert!(leases.len() <= limits::LEASE_BATCH);
                    let stream = self.streams.get_mut(&id).unwrap();
                    let generation = stream.generation;
                    stream.queue.extend(leases);
                    self.plan(self.each, Event::Processed(id, generation));
                }
                Action::CheckTtl { lease } => self.plan(self.each, Event::TtlResponse(lease)),
                Action::Respond { stream, .. } => {
                    if let Some(since) = self.waits.remove(&(stream.stream as i64)) {
                        self.longest = self.longest.max(self.now - since);
                    }
                }
                Action::End { .. } => panic!("no client stream may end"),
            }
        }
    }
}
