//! A hub and a simulated etcd by the clock: how long heartbeats wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_edge::limits;
use etcd_edge::state_machine::lease::{Action, Examined, Hub, PeerId, StreamId};

/// How long the world runs.
const RUN: Duration = Duration::from_secs(30);

/// Time to live of every lease.
const TTL: Duration = Duration::from_secs(3);

/// From where on leases expire: each is renewed in its time, and again when it is over; it is revoked
/// late.
const EXPIRED: i64 = 1_000_000;

/// How long etcd takes to revoke a lease: so long does a heartbeat for it block.
const BLOCKS: Duration = Duration::from_secs(5);

/// The longest that one of `leases` waited that are renewed each second by clients of ten connections,
/// beside one client that renews expired leases if there is `trouble`; and the most lanes. They come
/// one by one or all at once.
pub(crate) fn longest_wait(leases: usize, trouble: bool, together: bool) -> (Duration, usize) {
    let mut world = World::new(Duration::from_micros(200));
    world.leases(leases, together);
    if trouble {
        world.plan(Duration::from_millis(500), What::Early(0));
    }
    world.run();
    (world.longest, world.most_lanes)
}

/// The longest that one waited who begins to renew a lease of his own, at any time, while each of so many
/// connections renews one that has expired.
pub(crate) fn newcomers(expired: usize) -> Duration {
    let mut world = World::new(Duration::from_micros(200));
    for n in 0..expired as i64 {
        let lease = EXPIRED + n;
        world.open(lease, 1_000 + n as u64);
        world.plan(Duration::from_millis(500), What::Late(n));
    }
    for n in 0..100 {
        world.open(n, n as u64);
        world.plan(Duration::from_millis(40 * n as u64), What::Beat(n));
    }
    world.run();
    world.longest
}

/// The longest wait, and the most lanes, when each heartbeat takes etcd so long.
pub(crate) fn crowd(leases: usize, each: Duration) -> (Duration, usize) {
    let mut world = World::new(each);
    world.leases(leases, false);
    world.run();
    (world.longest, world.most_lanes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A client renews its lease.
    Beat(i64),
    /// One renews a lease in its time; the next one's turn comes soon.
    Early(i64),
    /// The same lease, when its time is over.
    Late(i64),
    /// etcd has worked at the first heartbeat of a lane's stream.
    Work(u64, u64),
    /// It says how long a lease has.
    Word(i64),
}

struct Lane {
    generation: u64,
    way: VecDeque<i64>,
}

struct World {
    hub: Hub,
    begun: Instant,
    now: Duration,
    /// How long etcd takes for one.
    each: Duration,
    plan: BinaryHeap<Reverse<(Duration, What)>>,
    lanes: HashMap<u64, Lane>,
    /// When each lease's heartbeat came that is not answered.
    waits: HashMap<i64, Duration>,
    /// When each expired lease is revoked.
    revoked: HashMap<i64, Duration>,
    longest: Duration,
    most_lanes: usize,
}

fn stream(lease: i64) -> StreamId {
    StreamId {
        worker: 0,
        stream: lease as u64,
    }
}

impl World {
    fn new(each: Duration) -> World {
        let begun = Instant::now();
        World {
            hub: Hub::new(begun),
            begun,
            now: Duration::ZERO,
            each,
            plan: BinaryHeap::new(),
            lanes: HashMap::new(),
            waits: HashMap::new(),
            revoked: HashMap::new(),
            longest: Duration::ZERO,
            most_lanes: 0,
        }
    }

    fn plan(&mut self, after: Duration, what: What) {
        self.plan.push(Reverse((self.now + after, what)));
    }

    /// So many, each of a stream of its own; spread over a second if not all at once.
    fn leases(&mut self, count: usize, together: bool) {
        for n in 0..count {
            let lease = n as i64;
            self.open(lease, n as u64 % 10);
            let first = Duration::from_secs(1) * n as u32 / count as u32;
            let first = if together { Duration::ZERO } else { first };
            self.plan(first, What::Beat(lease));
        }
    }

    fn open(&mut self, lease: i64, peer: u64) {
        self.hub.opened(stream(lease), PeerId { worker: 0, peer });
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
                        && let Some(Reverse((_, what))) = self.plan.pop()
                    {
                        self.happen(what);
                    }
                }
                (None, Some(wake)) => self.now = wake.max(self.now),
                (None, None) => return,
            }
            self.hub.settle(self.at());
            self.perform();
            self.most_lanes = self.most_lanes.max(self.lanes.len());
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Beat(lease) => {
                // The one before is answered, or this one is late as well.
                self.waits.entry(lease).or_insert(self.now);
                self.hub.beat(stream(lease), lease, self.at());
                self.plan(Duration::from_secs(1), What::Beat(lease));
            }
            What::Early(n) => {
                let lease = EXPIRED + n;
                self.open(lease, 77);
                self.hub.beat(stream(lease), lease, self.at());
                // Just when the others come, if they come at once.
                self.plan(TTL + Duration::from_millis(500), What::Late(n));
                self.plan(Duration::from_millis(200), What::Early(n + 1));
            }
            What::Late(n) => {
                let lease = EXPIRED + n;
                self.revoked.insert(lease, self.now + BLOCKS);
                self.hub.beat(stream(lease), lease, self.at());
            }
            What::Work(lane, generation) => self.work(lane, generation),
            What::Word(lease) => {
                let asked = self.at() - self.each;
                let word = match self.revoked.get(&lease) {
                    None => Examined::Lives(TTL),
                    Some(at) if *at > self.now => Examined::Doubtful,
                    Some(_) => Examined::Unknown,
                };
                self.hub.examined(lease, word, asked, self.at());
            }
        }
    }

    /// etcd answers the first of a stream, unless it blocks.
    fn work(&mut self, id: u64, generation: u64) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if lane.generation != generation {
            return;
        }
        let Some(lease) = lane.way.front().copied() else {
            return;
        };
        let ttl = match self.revoked.get(&lease) {
            Some(at) if *at > self.now => {
                let rest = *at - self.now;
                self.plan(rest, What::Work(id, generation));
                return;
            }
            Some(_) => Duration::ZERO,
            None => TTL,
        };
        lane.way.pop_front();
        if !lane.way.is_empty() {
            self.plan(self.each, What::Work(id, generation));
        }
        let at = self.at();
        self.hub
            .answered((id, generation), lease, ttl, &Bytes::new(), at);
    }

    fn perform(&mut self) {
        while let Some(action) = self.hub.next_action() {
            match action {
                Action::Connect {
                    lane, generation, ..
                } => {
                    let way = VecDeque::new();
                    self.lanes.insert(lane, Lane { generation, way });
                    let at = self.at();
                    self.hub.connected(lane, generation, at);
                    self.hub.settle(at);
                }
                Action::Close { lane } => {
                    self.lanes.remove(&lane);
                }
                Action::Send { lane: id, leases } => {
                    assert!(leases.len() <= limits::LEASE_BATCH);
                    let lane = self.lanes.get_mut(&id).unwrap();
                    let generation = lane.generation;
                    lane.way.extend(leases);
                    self.plan(self.each, What::Work(id, generation));
                }
                Action::Examine { lease } => self.plan(self.each, What::Word(lease)),
                Action::Answer { stream, .. } => {
                    if let Some(since) = self.waits.remove(&(stream.stream as i64)) {
                        self.longest = self.longest.max(self.now - since);
                    }
                }
                Action::End { .. } => panic!("nobody is to be sent away"),
            }
        }
    }
}
