//! Leases: the heartbeats of an identity's clients (c-streams), on one stream to etcd (s-stream).
//!
//! What the hub holds to, in the words of docs/guarantees.md and docs/lease.md:
//! - A heartbeat goes to etcd because a client sent one, and for no other reason; those for one lease
//!   that wait are one (L1), and one lease has one on its way at most.
//! - Each heartbeat of a client gets one answer, of a heartbeat that left after it came (L2).
//! - What was not answered when a stream was lost is sent again on the next (L3).
//! - etcd works a stream off one by one, so a heartbeat that it cannot answer keeps back all behind it.
//!   A lease that may have expired and does not come back soon is put aside. From then on until there is
//!   calm, etcd is asked about each lease that may have expired, and those that have are sent each alone
//!   on a stream (L4).
//!
//! Streams to etcd are *lanes*. There is one shared lane; more only while one cannot keep up, as when
//! the endpoint is a follower, which asks the leader for each heartbeat in turn.
//!
//! The caller connects, picks the token and the endpoint, and waits between attempts; it carries out
//! the actions of one input before the next, and calls [`Hub::settle`] after each group of inputs.

mod api;
mod isolated;
mod rounds;
mod upstream_stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits;
pub use api::{Action, Counts, End, Examined, PeerId, ReconnectReason, StreamId, Unavailable};
use isolated::IsolatedLeases;
use rounds::{Joined, RoundId, Rounds};
use upstream_stream::{Kind, UpstreamStream};

/// The heartbeats of one identity. See the module.
#[derive(Debug)]
pub struct Hub {
    rounds: Rounds,
    /// Rounds that wait for a shared lane, and since when. The oldest first, whenever it came here.
    queue: BTreeMap<RoundId, Instant>,
    /// Rounds whose leases are to be examined, and how many are.
    unexamined: BTreeSet<RoundId>,
    examining: usize,
    /// Rounds that wait for a lane of their own.
    doubted: IsolatedLeases,
    lanes: BTreeMap<u64, UpstreamStream>,
    last_lane: u64,
    /// Until when leases that may have expired are kept apart.
    trouble: Option<Instant>,
    /// Since when there is no client.
    unused: Instant,
    counts: Counts,
    actions: VecDeque<Action>,
}

impl Hub {
    /// Without a client.
    pub fn new(now: Instant) -> Hub {
        Hub {
            rounds: Rounds::default(),
            queue: BTreeMap::new(),
            unexamined: BTreeSet::new(),
            examining: 0,
            doubted: IsolatedLeases::default(),
            lanes: BTreeMap::new(),
            last_lane: 0,
            trouble: None,
            unused: now,
            counts: Counts::default(),
            actions: VecDeque::new(),
        }
    }

    /// A client's stream begins, under a name that was not there before.
    pub fn opened(&mut self, stream: StreamId, peer: PeerId) {
        self.rounds.open(stream, peer);
    }

    /// A heartbeat of a client. Nothing happens when its stream has ended.
    pub fn beat(&mut self, stream: StreamId, lease: i64, now: Instant) {
        match self.rounds.join(stream, lease, now) {
            Joined::Ready(round) => self.ready(round, now),
            Joined::Merged => self.counts.merged += 1,
            Joined::Waits | Joined::Nobody => {}
        }
    }

    /// The client sends no more; it gets what it waits for.
    pub fn half_closed(&mut self, stream: StreamId, now: Instant) {
        if self.rounds.half_close(stream) {
            self.end(stream, End::Done, now);
        }
    }

    /// The client's stream is over; nobody is told.
    pub fn closed(&mut self, stream: StreamId, now: Instant) {
        let before = self.rounds.streams();
        for round in self.rounds.close(stream) {
            self.queue.remove(&round);
            self.unexamined.remove(&round);
            self.doubted.remove(round);
        }
        if before > 0 && self.rounds.streams() == 0 {
            self.unused = now;
        }
    }

    /// The lane has the stream of this generation.
    pub fn connected(&mut self, lane: u64, generation: u64, now: Instant) {
        if let Some(lane) = self.lane(lane, generation) {
            lane.up = true;
            lane.since = now;
        }
    }

    /// etcd answered on a lane: the message, and what it says of which lease. The answers of a stream
    /// are handed in in their order.
    pub fn answered(
        &mut self,
        (lane, generation): (u64, u64),
        lease: i64,
        ttl: Duration,
        message: &Bytes,
        now: Instant,
    ) {
        let Some(up) = self.lane(lane, generation) else {
            return;
        };
        let (sent, round) = (up.sent, up.flight.front().copied());
        let Some(round) = round.filter(|round| self.rounds.lease(*round) == Some(lease)) else {
            // No answer to what was asked: nothing that follows can be believed.
            self.reconnect(lane, ReconnectReason::Lost, now);
            return;
        };
        self.landed(lane, now);
        if ttl.is_zero() {
            self.counts.expired += 1;
        }
        let answered = self.rounds.answered(round, sent, ttl);
        for (stream, times) in answered.waiters {
            self.actions.push_back(Action::Answer {
                stream,
                message: message.clone(),
                times,
            });
        }
        for stream in answered.done {
            self.end(stream, End::Done, now);
        }
        if let Some(next) = answered.next {
            self.ready(next, now);
        }
    }

    /// The first of what is on a lane is not any more.
    fn landed(&mut self, lane: u64, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&lane) else {
            return;
        };
        lane.flight.pop_front();
        lane.since = now;
        if let Kind::Apart(whose) = &mut lane.kind
            && let Some(peer) = whose.take()
        {
            self.doubted.end(peer);
        }
    }

    /// etcd's word on a lease, asked for at `asked`.
    pub fn examined(&mut self, lease: i64, word: Examined, asked: Instant, now: Instant) {
        self.examining = self.examining.saturating_sub(1);
        let lives = match word {
            // A time that the clock cannot express is as good as none.
            Examined::Lives(time) => asked.checked_add(time),
            Examined::Unknown | Examined::Doubtful => None,
        };
        let Some(round) = self.rounds.examined(lease, lives) else {
            return;
        };
        let trusted = word == Examined::Unknown || self.rounds.is_fresh(round, now);
        if trusted {
            self.queue.insert(round, now);
        } else {
            self.put_apart(round, now);
        }
    }

    /// A lane's stream has ended by itself, or spoke nonsense. False when that was about none of the
    /// heartbeats on it: the next stream may end alike.
    pub fn lost(&mut self, lane: u64, generation: u64, why: Unavailable, now: Instant) -> bool {
        let Some(up) = self.lane(lane, generation) else {
            return true;
        };
        let head = up.flight.front().copied();
        let (because, explained) = match (why, head) {
            (Unavailable::Refused(status), Some(head)) => {
                self.landed(lane, now);
                // One that is refused once will be again.
                self.beware(now);
                self.rounds
                    .distrust(head, now + limits::LEASE_ISOLATION_PERIOD);
                self.refuse(head, &End::Refused(status), now);
                (ReconnectReason::Needed, true)
            }
            (Unavailable::Refused(_) | Unavailable::Endpoint, _) => (ReconnectReason::Lost, false),
            (Unavailable::Token, _) => (ReconnectReason::Token, true),
        };
        self.reconnect(lane, because, now);
        explained
    }

    /// Time has passed, or something has been handed in: decides what is to be done now.
    pub fn settle(&mut self, now: Instant) {
        self.give_up(now);
        self.judge(now);
        self.examine();
        self.hand_out(now);
        // Before others are opened: one that is closed may be missed.
        self.close_lanes(now);
        self.open_lanes(now);
    }

    /// When [`Hub::settle`] is to be called if nothing else happens; `None` for not at all.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let lanes = self.lanes.iter();
        let lanes = lanes.filter_map(|(id, lane)| self.lane_due(*id, lane, now));
        let others = [self.rounds.patience(), self.crowded_at(now)];
        lanes.chain(others.into_iter().flatten()).min()
    }

    /// The next thing to do, until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Clients' streams.
    pub fn client_streams(&self) -> usize {
        self.rounds.streams()
    }

    /// Streams to etcd, those included that are being opened.
    pub fn upstream_streams(&self) -> usize {
        self.lanes.len()
    }

    /// Nobody is here, and nothing is open: the hub may be dropped.
    pub fn is_over(&self) -> bool {
        self.client_streams() == 0 && self.lanes.is_empty()
    }

    /// What happened since it was last asked.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn lane(&mut self, lane: u64, generation: u64) -> Option<&mut UpstreamStream> {
        let lane = self.lanes.get_mut(&lane)?;
        (lane.generation == generation).then_some(lane)
    }

    /// The round can go.
    fn ready(&mut self, round: RoundId, now: Instant) {
        if !self.is_troubled(now) || self.rounds.is_fresh(round, now) {
            self.queue.insert(round, now);
        } else if self.rounds.is_refused(round, now) {
            self.put_apart(round, now);
        } else {
            self.unexamined.insert(round);
        }
    }

    /// The round is to be sent alone.
    fn put_apart(&mut self, round: RoundId, now: Instant) {
        match self.rounds.peer(round) {
            Some(peer) => self.doubted.push(peer, round),
            // Nobody waits for it, and it is not sent.
            None => drop(self.queue.insert(round, now)),
        }
    }

    /// Asks about leases that may have expired, some at a time.
    fn examine(&mut self) {
        while self.examining < limits::LEASE_TTL_CHECKS
            && let Some(round) = self.unexamined.pop_first()
        {
            if let Some(lease) = self.rounds.lease(round) {
                self.rounds.examine(round);
                self.examining += 1;
                self.actions.push_back(Action::Examine { lease });
            }
        }
    }

    fn is_troubled(&self, now: Instant) -> bool {
        self.trouble.is_some_and(|until| now < until)
    }

    /// From now on for a while, what may have expired is kept apart.
    fn beware(&mut self, now: Instant) {
        let troubled = self.is_troubled(now);
        self.trouble = Some(now + limits::LEASE_ISOLATION_PERIOD);
        if !troubled {
            for round in std::mem::take(&mut self.queue).into_keys() {
                self.ready(round, now);
            }
        }
    }

    /// Tells whoever waits for a round that there is no answer.
    fn refuse(&mut self, round: RoundId, why: &End, now: Instant) {
        for stream in self.rounds.waiters(round) {
            self.end(stream, why.clone(), now);
        }
        // What came for the lease meanwhile is of other clients, who will be told the same.
        self.take_back(round, now);
    }

    fn end(&mut self, stream: StreamId, why: End, now: Instant) {
        self.closed(stream, now);
        self.actions.push_back(Action::End { stream, why });
    }

    /// A round that was on its way is ready again, if anybody waits for it.
    fn take_back(&mut self, round: RoundId, now: Instant) {
        if self.rounds.unsent(round) {
            self.ready(round, now);
        }
    }

    /// The lane is to have another stream; what is on its way is sent again.
    fn reconnect(&mut self, id: u64, because: ReconnectReason, now: Instant) {
        if self.rounds.streams() == 0 {
            // For nobody.
            self.empty(id, now);
            return self.close(id);
        }
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        lane.generation += 1;
        lane.up = false;
        lane.since = now;
        self.actions.push_back(Action::Connect {
            lane: id,
            generation: lane.generation,
            because,
        });
        self.empty(id, now);
    }

    /// What is on a lane's way is ready again.
    fn empty(&mut self, id: u64, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let flight = std::mem::take(&mut lane.flight);
        if let Kind::Apart(whose) = &mut lane.kind
            && let Some(peer) = whose.take()
        {
            self.doubted.end(peer);
        }
        for round in flight {
            self.counts.resent += 1;
            self.take_back(round, now);
        }
    }

    fn close(&mut self, lane: u64) {
        self.lanes.remove(&lane);
        self.actions.push_back(Action::Close { lane });
    }

    /// Whoever has waited for as long as calls wait for an endpoint is told so (E4).
    fn give_up(&mut self, now: Instant) {
        if self.rounds.patience().is_some_and(|until| now >= until) {
            for stream in self.rounds.impatient(now) {
                self.end(stream, End::Unavailable, now);
            }
        }
    }

    /// Looks for what does not come back: a lease's fault, or the endpoint's.
    fn judge(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.first().is_some())
            .filter(|(_, lane)| now >= lane.since + self.patience(lane, now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let lane = &self.lanes[&id];
            let doubtful = !self.rounds.is_fresh(lane.flight[0], now);
            if lane.is_shared() && doubtful {
                self.set_aside(id, now);
                continue;
            }
            if lane.is_shared() {
                self.reconnect(id, ReconnectReason::Stalled, now);
            } else {
                // It comes back alone; and it may be its own fault.
                self.beware(now);
                self.reconnect(id, ReconnectReason::Elsewhere, now);
            }
        }
    }

    /// How long the first on a lane may take.
    fn patience(&self, lane: &UpstreamStream, now: Instant) -> Duration {
        match lane.kind {
            Kind::Apart(_) => limits::LEASE_ISOLATED_TIMEOUT,
            Kind::Shared if self.rounds.is_fresh(lane.flight[0], now) => limits::LEASE_SILENT_TIME,
            Kind::Shared => limits::LEASE_BLOCKED_TIME,
        }
    }

    /// What blocks a shared lane bears the wait alone. Where nothing is behind it, its stream is left
    /// to it; else that is dropped, so that nothing on it renews a lease later.
    fn set_aside(&mut self, id: u64, now: Instant) {
        self.beware(now);
        self.counts.isolated += 1;
        let apart = self.lanes.values().filter(|lane| !lane.is_shared()).count();
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if lane.flight.len() == 1 && apart < limits::LEASE_ISOLATED_STREAMS {
            let whose = self.rounds.peer(lane.flight[0]);
            lane.kind = Kind::Apart(whose);
            if let Some(peer) = whose {
                self.doubted.begin(peer);
            }
        } else {
            self.empty(id, now);
            self.close(id);
        }
    }

    /// Gives free lanes what waits.
    fn hand_out(&mut self, now: Instant) {
        let first = self.first_shared();
        for (id, lane) in &mut self.lanes {
            // The first takes whatever there is; the others what it does not come to.
            let waited = || {
                self.queue
                    .values()
                    .next()
                    .map(|at| *at + limits::LEASE_SPILL_WAIT)
            };
            let spilled = !lane.is_shared() || Some(*id) == first;
            if lane.free_at().is_none_or(|at| now < at)
                || !spilled && waited().is_none_or(|at| now < at)
            {
                continue;
            }
            let mut batch = Vec::new();
            match &mut lane.kind {
                Kind::Shared => {
                    while batch.len() < limits::LEASE_BATCH
                        && let Some((round, _)) = self.queue.pop_first()
                    {
                        batch.push(round);
                    }
                }
                Kind::Apart(whose) => {
                    if let Some((peer, round)) = self.doubted.pop() {
                        *whose = Some(peer);
                        batch.push(round);
                    }
                }
            }
            if batch.is_empty() {
                continue;
            }
            batch.iter().for_each(|round| self.rounds.sent(*round));
            let leases = batch.iter().filter_map(|round| self.rounds.lease(*round));
            let leases: Vec<i64> = leases.collect();
            self.counts.sent += leases.len();
            self.actions.push_back(Action::Send { lane: *id, leases });
            lane.send(batch, now);
        }
    }

    /// Opens a lane where one is missing, one at a time of each kind.
    fn open_lanes(&mut self, now: Instant) {
        let shared = self.lanes.values().filter(|lane| lane.is_shared());
        if !self.queue.is_empty() && shared.count() == 0
            || self.crowded_at(now).is_some_and(|at| now >= at)
        {
            self.open(Kind::Shared, now);
        }
        let apart = self.lanes.values().filter(|lane| !lane.is_shared());
        let all = apart.clone().count();
        let ready = apart.filter(|lane| lane.flight.is_empty()).count();
        if ready == 0 && all < limits::LEASE_ISOLATED_STREAMS && self.doubted.any() {
            self.open(Kind::Apart(None), now);
        }
    }

    fn open(&mut self, kind: Kind, now: Instant) {
        self.last_lane += 1;
        self.lanes
            .insert(self.last_lane, UpstreamStream::new(kind, now));
        self.actions.push_back(Action::Connect {
            lane: self.last_lane,
            generation: 0,
            because: ReconnectReason::Needed,
        });
    }

    /// When what waits will have waited for too long behind lanes that do answer: then one more is of
    /// use.
    fn crowded_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.queue.values().next()?;
        let mut shared = self.lanes.values().filter(|lane| lane.is_shared());
        let busy = |lane: &UpstreamStream| {
            lane.first().is_some() && lane.waited(now) < limits::LEASE_BLOCKED_TIME
        };
        let few = shared.clone().count() < limits::LEASE_SHARED_STREAMS;
        (few && shared.all(busy)).then(|| *waits + limits::LEASE_NEW_STREAM_WAIT)
    }

    /// Closes lanes that have had nothing to do for a while: all but one while there are clients.
    fn close_lanes(&mut self, now: Instant) {
        let idle: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(id, lane)| {
                self.idle_until(**id, lane)
                    .is_some_and(|until| now >= until)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.empty(id, now);
            self.close(id);
        }
    }

    /// When a lane will have been idle for long enough.
    fn idle_until(&self, id: u64, lane: &UpstreamStream) -> Option<Instant> {
        if self.rounds.streams() == 0 {
            return Some(self.unused + limits::LEASE_LINGER);
        }
        let is_first = self.first_shared() == Some(id);
        (lane.flight.is_empty() && !is_first).then(|| lane.since + limits::LEASE_STREAM_IDLE)
    }

    /// The shared lane that stays as long as there are clients.
    fn first_shared(&self) -> Option<u64> {
        let mut lanes = self.lanes.iter();
        lanes.find(|(_, lane)| lane.is_shared()).map(|(id, _)| *id)
    }

    /// When something is to be decided about a lane.
    fn lane_due(&self, id: u64, lane: &UpstreamStream, now: Instant) -> Option<Instant> {
        let answer = lane.first().map(|_| lane.since + self.patience(lane, now));
        let waits = match lane.kind {
            Kind::Shared if self.first_shared() == Some(id) => {
                self.queue.values().next().map(|_| now)
            }
            Kind::Shared => self
                .queue
                .values()
                .next()
                .map(|at| *at + limits::LEASE_SPILL_WAIT),
            Kind::Apart(_) => self.doubted.any().then_some(now),
        };
        let send = lane.free_at().and_then(|free| Some(free.max(waits?)));
        let times = [answer, send, self.idle_until(id, lane)];
        times.into_iter().flatten().min()
    }
}
