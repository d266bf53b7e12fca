//! Lease hub: merges the heartbeats of an identity's client streams into few upstream streams.
//!
//! The rules are L1 to L4 in docs/reference/guarantees.md. docs/internals/lease-hub.md explains the
//! design. In short:
//! - A heartbeat is sent to etcd only because a client sent one. Waiting heartbeats of one lease
//!   merge into one (L1), and a lease has at most one heartbeat in flight.
//! - Each client heartbeat receives one response, to an upstream heartbeat that was sent after the
//!   client's arrived (L2).
//! - Heartbeats that are unanswered when a stream is lost are sent again on the next stream (L3).
//! - etcd processes a stream in order, so a heartbeat that it cannot answer blocks all behind it. A
//!   lease that may have expired and is not answered soon is isolated. From then on, until no such
//!   case has occurred for a while, each lease that may have expired gets a TTL check. Leases that
//!   have expired are sent each alone on a stream (L4).
//!
//! Each upstream stream occupies a *slot*; a slot outlives its streams. There is one shared slot.
//! More shared slots open only while one cannot keep up, for example because the endpoint is a
//! follower, which queries the leader for each heartbeat in turn.
//!
//! The driver connects, selects token and endpoint, and waits between attempts. It carries out the
//! actions of one input before the next input, and calls [`Hub::settle`] after each group of inputs.

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

/// Lease hub of one identity. It does no IO; its actions are in [`Hub::next_action`].
#[derive(Debug)]
pub struct Hub {
    rounds: Rounds,
    /// Rounds that wait for a shared slot, and since when. Ordered by age of the round.
    queue: BTreeMap<RoundId, Instant>,
    /// Rounds of leases that need a TTL check.
    unexamined: BTreeSet<RoundId>,
    /// TTL checks in flight.
    examining: usize,
    /// Rounds that wait for an isolated slot.
    doubted: IsolatedLeases,
    lanes: BTreeMap<u64, UpstreamStream>,
    last_lane: u64,
    /// Until when leases that may have expired are not sent on a shared slot.
    trouble: Option<Instant>,
    /// When the last client stream closed.
    unused: Instant,
    counts: Counts,
    actions: VecDeque<Action>,
}

impl Hub {
    /// Creates a hub without clients.
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

    /// Handles a new client stream. Its id was never used before.
    pub fn opened(&mut self, stream: StreamId, peer: PeerId) {
        self.rounds.open(stream, peer);
    }

    /// Handles a heartbeat of a client. Ignored if the stream has ended.
    pub fn beat(&mut self, stream: StreamId, lease: i64, now: Instant) {
        match self.rounds.join(stream, lease, now) {
            Joined::Ready(round) => self.ready(round, now),
            Joined::Merged => self.counts.merged += 1,
            Joined::Waits | Joined::Nobody => {}
        }
    }

    /// Handles a half-close: the client sends no more, and receives its outstanding responses.
    pub fn half_closed(&mut self, stream: StreamId, now: Instant) {
        if self.rounds.half_close(stream) {
            self.end(stream, End::Done, now);
        }
    }

    /// Handles the end of a client stream. The client receives nothing more.
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

    /// Handles the opening of the stream of this slot and generation.
    pub fn connected(&mut self, lane: u64, generation: u64, now: Instant) {
        if let Some(lane) = self.lane(lane, generation) {
            lane.up = true;
            lane.since = now;
        }
    }

    /// Handles a response of etcd: `message` reports `ttl` for `lease`. Zero means expired.
    ///
    /// The driver passes the responses of a stream in their order.
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
            // Not a response to the first heartbeat in flight: the stream cannot be trusted.
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

    /// Removes the first round in flight of a slot.
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

    /// Handles the result of a TTL check that was sent at `sent`.
    pub fn examined(&mut self, lease: i64, word: Examined, asked: Instant, now: Instant) {
        self.examining = self.examining.saturating_sub(1);
        let lives = match word {
            // A time that the clock cannot express counts as none.
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

    /// Handles the end of an upstream stream, or a message on it that cannot be parsed.
    ///
    /// Returns false if the end concerns none of the heartbeats on it: the next stream may end in
    /// the same way.
    pub fn lost(&mut self, lane: u64, generation: u64, why: Unavailable, now: Instant) -> bool {
        let Some(up) = self.lane(lane, generation) else {
            return true;
        };
        let head = up.flight.front().copied();
        let (because, explained) = match (why, head) {
            (Unavailable::Refused(status), Some(head)) => {
                self.landed(lane, now);
                // etcd will refuse the next heartbeat of this lease as well.
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

    /// Decides what to do now. Called after each group of inputs and at [`Hub::wake_at`].
    pub fn settle(&mut self, now: Instant) {
        self.give_up(now);
        self.judge(now);
        self.examine();
        self.hand_out(now);
        // Before slots are opened: a closed slot may have to be replaced.
        self.close_lanes(now);
        self.open_lanes(now);
    }

    /// Returns when to call [`Hub::settle`] if no input arrives before; `None` for never.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let lanes = self.lanes.iter();
        let lanes = lanes.filter_map(|(id, lane)| self.lane_due(*id, lane, now));
        let others = [self.rounds.patience(), self.crowded_at(now)];
        lanes.chain(others.into_iter().flatten()).min()
    }

    /// Returns the next action, until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the number of client streams.
    pub fn client_streams(&self) -> usize {
        self.rounds.streams()
    }

    /// Returns the number of upstream streams, including those that are being opened.
    pub fn upstream_streams(&self) -> usize {
        self.lanes.len()
    }

    /// Returns whether there is no client and no slot, so that the hub may be dropped.
    pub fn is_over(&self) -> bool {
        self.client_streams() == 0 && self.lanes.is_empty()
    }

    /// Returns the events since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn lane(&mut self, lane: u64, generation: u64) -> Option<&mut UpstreamStream> {
        let lane = self.lanes.get_mut(&lane)?;
        (lane.generation == generation).then_some(lane)
    }

    /// Queues a round that can be sent.
    fn ready(&mut self, round: RoundId, now: Instant) {
        if !self.is_troubled(now) || self.rounds.is_fresh(round, now) {
            self.queue.insert(round, now);
        } else if self.rounds.is_refused(round, now) {
            self.put_apart(round, now);
        } else {
            self.unexamined.insert(round);
        }
    }

    /// Queues a round to be sent alone.
    fn put_apart(&mut self, round: RoundId, now: Instant) {
        match self.rounds.peer(round) {
            Some(peer) => self.doubted.push(peer, round),
            // No client waits for the round, so it is not sent.
            None => drop(self.queue.insert(round, now)),
        }
    }

    /// Requests TTL checks, a limited number at a time.
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

    /// Starts or extends the period in which leases that may have expired are isolated.
    fn beware(&mut self, now: Instant) {
        let troubled = self.is_troubled(now);
        self.trouble = Some(now + limits::LEASE_ISOLATION_PERIOD);
        if !troubled {
            for round in std::mem::take(&mut self.queue).into_keys() {
                self.ready(round, now);
            }
        }
    }

    /// Ends all client streams that wait for a round.
    fn refuse(&mut self, round: RoundId, why: &End, now: Instant) {
        for stream in self.rounds.waiters(round) {
            self.end(stream, why.clone(), now);
        }
        // The next round of the lease has other clients. They will receive the same response.
        self.take_back(round, now);
    }

    fn end(&mut self, stream: StreamId, why: End, now: Instant) {
        self.closed(stream, now);
        self.actions.push_back(Action::End { stream, why });
    }

    /// Queues a round that was in flight again, if a client waits for it.
    fn take_back(&mut self, round: RoundId, now: Instant) {
        if self.rounds.unsent(round) {
            self.ready(round, now);
        }
    }

    /// Requests another stream for a slot. The rounds in flight are sent again.
    fn reconnect(&mut self, id: u64, because: ReconnectReason, now: Instant) {
        if self.rounds.streams() == 0 {
            // No client needs the slot.
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

    /// Queues all rounds in flight of a slot again.
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

    /// Ends client streams that have waited for the maximum time of a call (E4).
    fn give_up(&mut self, now: Instant) {
        if self.rounds.patience().is_some_and(|until| now >= until) {
            for stream in self.rounds.impatient(now) {
                self.end(stream, End::Unavailable, now);
            }
        }
    }

    /// Handles heartbeats that are overdue: either the lease or the endpoint is at fault.
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
                // It stays alone on the next stream, because the lease may be at fault.
                self.beware(now);
                self.reconnect(id, ReconnectReason::Elsewhere, now);
            }
        }
    }

    /// Returns how long the first heartbeat in flight of a slot may take.
    fn patience(&self, lane: &UpstreamStream, now: Instant) -> Duration {
        match lane.kind {
            Kind::Apart(_) => limits::LEASE_ISOLATED_TIMEOUT,
            Kind::Shared if self.rounds.is_fresh(lane.flight[0], now) => limits::LEASE_SILENT_TIME,
            Kind::Shared => limits::LEASE_BLOCKED_TIME,
        }
    }

    /// Isolates the lease that blocks a shared slot (L4).
    ///
    /// If nothing is behind it, its stream is left to it. Otherwise the stream is dropped, so that
    /// no heartbeat on it renews a lease later.
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

    /// Sends waiting rounds on free slots.
    fn hand_out(&mut self, now: Instant) {
        let first = self.first_shared();
        for (id, lane) in &mut self.lanes {
            // The first shared slot takes any round. The others take rounds that waited too long.
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

    /// Opens missing slots, one of each kind at a time.
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

    /// Returns when to open one more shared slot: the oldest waiting round will have waited too
    /// long, although all shared slots respond.
    fn crowded_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.queue.values().next()?;
        let mut shared = self.lanes.values().filter(|lane| lane.is_shared());
        let busy = |lane: &UpstreamStream| {
            lane.first().is_some() && lane.waited(now) < limits::LEASE_BLOCKED_TIME
        };
        let few = shared.clone().count() < limits::LEASE_SHARED_STREAMS;
        (few && shared.all(busy)).then(|| *waits + limits::LEASE_NEW_STREAM_WAIT)
    }

    /// Closes slots that have been idle. The first shared slot stays while there are clients.
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

    /// Returns when a slot will have been idle for long enough to be closed.
    fn idle_until(&self, id: u64, lane: &UpstreamStream) -> Option<Instant> {
        if self.rounds.streams() == 0 {
            return Some(self.unused + limits::LEASE_LINGER);
        }
        let is_first = self.first_shared() == Some(id);
        (lane.flight.is_empty() && !is_first).then(|| lane.since + limits::LEASE_STREAM_IDLE)
    }

    /// Returns the shared slot that stays while there are clients.
    fn first_shared(&self) -> Option<u64> {
        let mut lanes = self.lanes.iter();
        lanes.find(|(_, lane)| lane.is_shared()).map(|(id, _)| *id)
    }

    /// Returns when a slot needs the next decision.
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
