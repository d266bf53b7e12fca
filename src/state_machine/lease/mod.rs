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
//! The driver connects, selects token and endpoint, and waits between attempts. The driver carries
//! out the actions of one input before the next input, and calls [`Hub::settle`] after each group
//! of inputs.

mod api;
mod isolated;
mod rounds;
mod upstream_stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits;
pub use api::{
    Action, ClientStreamEnd, ConnectionId, Counts, ReconnectReason, StreamId, TtlCheckResult,
    Unavailable,
};
use isolated::IsolatedLeases;
use rounds::{JoinResult, RoundId, Rounds};
use upstream_stream::{UpstreamKind, UpstreamStream};

/// Lease hub of one identity. A hub does no IO; [`Hub::next_action`] returns its actions.
#[derive(Debug)]
pub struct Hub {
    rounds: Rounds,
    /// Rounds that wait for a shared slot, and since when. Ordered by age of the round.
    queue: BTreeMap<RoundId, Instant>,
    /// Rounds of leases that need a TTL check.
    unchecked: BTreeSet<RoundId>,
    /// TTL checks in flight.
    checks_in_flight: usize,
    /// Rounds that wait for an isolated slot.
    isolated: IsolatedLeases,
    slots: BTreeMap<u64, UpstreamStream>,
    last_slot: u64,
    /// Time until which leases that may have expired are not sent on a shared slot.
    isolating_until: Option<Instant>,
    /// Time at which the last client stream closed.
    unused_since: Instant,
    counts: Counts,
    actions: VecDeque<Action>,
}

impl Hub {
    /// Creates a hub without clients.
    pub fn new(now: Instant) -> Hub {
        Hub {
            rounds: Rounds::default(),
            queue: BTreeMap::new(),
            unchecked: BTreeSet::new(),
            checks_in_flight: 0,
            isolated: IsolatedLeases::default(),
            slots: BTreeMap::new(),
            last_slot: 0,
            isolating_until: None,
            unused_since: now,
            counts: Counts::default(),
            actions: VecDeque::new(),
        }
    }

    /// Handles a new client stream. Its id was never used before.
    pub fn opened(&mut self, stream: StreamId, connection: ConnectionId) {
        self.rounds.open(stream, connection);
    }

    /// Handles a heartbeat of a client. Ignored if the stream has ended.
    pub fn heartbeat(&mut self, stream: StreamId, lease: i64, now: Instant) {
        match self.rounds.join(stream, lease, now) {
            JoinResult::Ready(round) => self.enqueue(round, now),
            JoinResult::Merged => self.counts.merged += 1,
            JoinResult::Queued | JoinResult::StreamClosed => {}
        }
    }

    /// Handles a half-close: the client sends no more, and receives its outstanding responses.
    pub fn half_closed(&mut self, stream: StreamId, now: Instant) {
        if self.rounds.half_close(stream) {
            self.end(stream, ClientStreamEnd::Done, now);
        }
    }

    /// Handles the end of a client stream. The client receives nothing more.
    pub fn closed(&mut self, stream: StreamId, now: Instant) {
        let before = self.rounds.streams();
        for round in self.rounds.close(stream) {
            self.queue.remove(&round);
            self.unchecked.remove(&round);
            self.isolated.remove(round);
        }
        if before > 0 && self.rounds.streams() == 0 {
            self.unused_since = now;
        }
    }

    /// Handles the opening of the stream of this slot and generation.
    pub fn connected(&mut self, slot: u64, generation: u64, now: Instant) {
        if let Some(slot) = self.current_slot(slot, generation) {
            slot.is_open = true;
            slot.since = now;
        }
    }

    /// Handles a response of etcd: `message` reports `ttl` for `lease`. Zero means expired.
    ///
    /// The driver passes the responses of a stream in their order.
    pub fn answered(
        &mut self,
        (slot, generation): (u64, u64),
        lease: i64,
        ttl: Duration,
        message: &Bytes,
        now: Instant,
    ) {
        let Some(current) = self.current_slot(slot, generation) else {
            return;
        };
        let (sent, round) = (current.sent, current.in_flight.front().copied());
        let Some(round) = round.filter(|round| self.rounds.lease(*round) == Some(lease)) else {
            // Not a response to the first heartbeat in flight: the stream cannot be trusted.
            self.reconnect(slot, ReconnectReason::Lost, now);
            return;
        };
        self.pop_in_flight(slot, now);
        if ttl.is_zero() {
            self.counts.expired += 1;
        }
        let answered = self.rounds.answered(round, sent, ttl);
        for (stream, count) in answered.waiters {
            self.actions.push_back(Action::Respond {
                stream,
                message: message.clone(),
                count,
            });
        }
        for stream in answered.done {
            self.end(stream, ClientStreamEnd::Done, now);
        }
        if let Some(next) = answered.next {
            self.enqueue(next, now);
        }
    }

    /// Removes the first round in flight of a slot.
    fn pop_in_flight(&mut self, slot: u64, now: Instant) {
        let Some(slot) = self.slots.get_mut(&slot) else {
            return;
        };
        slot.in_flight.pop_front();
        slot.since = now;
        if let UpstreamKind::Isolated(owner) = &mut slot.kind
            && let Some(connection) = owner.take()
        {
            self.isolated.release(connection);
        }
    }

    /// Handles the result of a TTL check that was sent at `sent`.
    pub fn ttl_checked(&mut self, lease: i64, result: TtlCheckResult, sent: Instant, now: Instant) {
        self.checks_in_flight = self.checks_in_flight.saturating_sub(1);
        let alive_until = match result {
            // A time that the clock cannot express counts as none.
            TtlCheckResult::Alive(time) => sent.checked_add(time),
            TtlCheckResult::NotFound | TtlCheckResult::Doubtful => None,
        };
        let Some(round) = self.rounds.ttl_checked(lease, alive_until) else {
            return;
        };
        let trusted = result == TtlCheckResult::NotFound || self.rounds.is_fresh(round, now);
        if trusted {
            self.queue.insert(round, now);
        } else {
            self.isolate(round, now);
        }
    }

    /// Handles the end of an upstream stream, or a message on it that cannot be parsed.
    ///
    /// Returns false if the end concerns none of the heartbeats on it: the next stream may end in
    /// the same way.
    pub fn lost(&mut self, slot: u64, generation: u64, cause: Unavailable, now: Instant) -> bool {
        let Some(current) = self.current_slot(slot, generation) else {
            return true;
        };
        let head = current.in_flight.front().copied();
        let (reason, explained) = match (cause, head) {
            (Unavailable::Refused(status), Some(head)) => {
                self.pop_in_flight(slot, now);
                // etcd will refuse the next heartbeat of this lease as well.
                self.start_isolation(now);
                self.rounds
                    .mark_refused(head, now + limits::LEASE_ISOLATION_PERIOD);
                self.reject(head, &ClientStreamEnd::Refused(status), now);
                (ReconnectReason::Needed, true)
            }
            (Unavailable::Refused(_) | Unavailable::Endpoint, _) => (ReconnectReason::Lost, false),
            (Unavailable::Token, _) => (ReconnectReason::Token, true),
        };
        self.reconnect(slot, reason, now);
        explained
    }

    /// Decides what to do now. Called after each group of inputs and at [`Hub::wake_at`].
    pub fn settle(&mut self, now: Instant) {
        self.end_overdue_streams(now);
        self.handle_overdue(now);
        self.request_ttl_checks();
        self.send_batches(now);
        // Before slots are opened: a closed slot may have to be replaced.
        self.close_slots(now);
        self.open_slots(now);
    }

    /// Returns when to call [`Hub::settle`] if no input arrives before; `None` for never.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let slots = self.slots.iter();
        let slots = slots.filter_map(|(id, slot)| self.slot_due_at(*id, slot, now));
        let others = [self.rounds.next_deadline(), self.next_shared_slot_at(now)];
        slots.chain(others.into_iter().flatten()).min()
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
        self.slots.len()
    }

    /// Returns whether there is no client and no slot, so that the hub may be dropped.
    pub fn is_finished(&self) -> bool {
        self.client_streams() == 0 && self.slots.is_empty()
    }

    /// Returns the events since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn current_slot(&mut self, slot: u64, generation: u64) -> Option<&mut UpstreamStream> {
        let slot = self.slots.get_mut(&slot)?;
        (slot.generation == generation).then_some(slot)
    }

    /// Queues a round that can be sent.
    fn enqueue(&mut self, round: RoundId, now: Instant) {
        if !self.is_isolating(now) || self.rounds.is_fresh(round, now) {
            self.queue.insert(round, now);
        } else if self.rounds.is_refused(round, now) {
            self.isolate(round, now);
        } else {
            self.unchecked.insert(round);
        }
    }

    /// Queues a round to be sent alone.
    fn isolate(&mut self, round: RoundId, now: Instant) {
        match self.rounds.connection(round) {
            Some(connection) => self.isolated.push(connection, round),
            // No client waits for the round, so it is not sent.
            None => drop(self.queue.insert(round, now)),
        }
    }

    /// Requests TTL checks, a limited number at a time.
    fn request_ttl_checks(&mut self) {
        while self.checks_in_flight < limits::LEASE_TTL_CHECKS
            && let Some(round) = self.unchecked.pop_first()
        {
            if let Some(lease) = self.rounds.lease(round) {
                self.rounds.wait_for_ttl_check(round);
                self.checks_in_flight += 1;
                self.actions.push_back(Action::CheckTtl { lease });
            }
        }
    }

    fn is_isolating(&self, now: Instant) -> bool {
        self.isolating_until.is_some_and(|until| now < until)
    }

    /// Starts or extends the period in which leases that may have expired are isolated.
    fn start_isolation(&mut self, now: Instant) {
        let was_isolating = self.is_isolating(now);
        self.isolating_until = Some(now + limits::LEASE_ISOLATION_PERIOD);
        if !was_isolating {
            for round in std::mem::take(&mut self.queue).into_keys() {
                self.enqueue(round, now);
            }
        }
    }

    /// Ends all client streams that wait for a round.
    fn reject(&mut self, round: RoundId, reason: &ClientStreamEnd, now: Instant) {
        for stream in self.rounds.waiters(round) {
            self.end(stream, reason.clone(), now);
        }
        // The next round of the lease has other clients, which will receive the same response.
        self.requeue(round, now);
    }

    fn end(&mut self, stream: StreamId, reason: ClientStreamEnd, now: Instant) {
        self.closed(stream, now);
        self.actions.push_back(Action::End { stream, reason });
    }

    /// Queues a round that was in flight again, if a client waits for it.
    fn requeue(&mut self, round: RoundId, now: Instant) {
        if self.rounds.lost(round) {
            self.enqueue(round, now);
        }
    }

    /// Requests another stream for a slot. The rounds in flight are sent again.
    fn reconnect(&mut self, id: u64, reason: ReconnectReason, now: Instant) {
        if self.rounds.streams() == 0 {
            // No client needs the slot.
            self.requeue_in_flight(id, now);
            return self.close(id);
        }
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.generation += 1;
        slot.is_open = false;
        slot.since = now;
        self.actions.push_back(Action::Connect {
            slot: id,
            generation: slot.generation,
            reason,
        });
        self.requeue_in_flight(id, now);
    }

    /// Queues all rounds in flight of a slot again.
    fn requeue_in_flight(&mut self, id: u64, now: Instant) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let in_flight = std::mem::take(&mut slot.in_flight);
        if let UpstreamKind::Isolated(owner) = &mut slot.kind
            && let Some(connection) = owner.take()
        {
            self.isolated.release(connection);
        }
        for round in in_flight {
            self.counts.resent += 1;
            self.requeue(round, now);
        }
    }

    fn close(&mut self, slot: u64) {
        self.slots.remove(&slot);
        self.actions.push_back(Action::Close { slot });
    }

    /// Ends client streams that have waited for the maximum time of a call (E4).
    fn end_overdue_streams(&mut self, now: Instant) {
        if self
            .rounds
            .next_deadline()
            .is_some_and(|until| now >= until)
        {
            for stream in self.rounds.overdue(now) {
                self.end(stream, ClientStreamEnd::Unavailable, now);
            }
        }
    }

    /// Handles heartbeats that are overdue: either the lease or the endpoint is at fault.
    fn handle_overdue(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.first().is_some())
            .filter(|(_, slot)| now >= slot.since + self.response_timeout(slot, now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let slot = &self.slots[&id];
            let doubtful = !self.rounds.is_fresh(slot.in_flight[0], now);
            if slot.is_shared() && doubtful {
                self.isolate_first(id, now);
                continue;
            }
            if slot.is_shared() {
                self.reconnect(id, ReconnectReason::Stalled, now);
            } else {
                // It stays alone on the next stream, because the lease may be at fault.
                self.start_isolation(now);
                self.reconnect(id, ReconnectReason::OtherEndpoint, now);
            }
        }
    }

    /// Returns how long the first heartbeat in flight of a slot may take.
    fn response_timeout(&self, slot: &UpstreamStream, now: Instant) -> Duration {
        match slot.kind {
            UpstreamKind::Isolated(_) => limits::LEASE_ISOLATED_TIMEOUT,
            UpstreamKind::Shared if self.rounds.is_fresh(slot.in_flight[0], now) => {
                limits::LEASE_SILENT_TIME
            }
            UpstreamKind::Shared => limits::LEASE_BLOCKED_TIME,
        }
    }

    /// Isolates the lease that blocks a shared slot (L4).
    ///
    /// If nothing is behind it, its stream is left to it. Otherwise the stream is dropped, so that
    /// no heartbeat on it renews a lease later.
    fn isolate_first(&mut self, id: u64, now: Instant) {
        self.start_isolation(now);
        self.counts.isolated += 1;
        let isolated = self.slots.values().filter(|slot| !slot.is_shared()).count();
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.in_flight.len() == 1 && isolated < limits::LEASE_ISOLATED_STREAMS {
            let owner = self.rounds.connection(slot.in_flight[0]);
            slot.kind = UpstreamKind::Isolated(owner);
            if let Some(connection) = owner {
                self.isolated.acquire(connection);
            }
        } else {
            self.requeue_in_flight(id, now);
            self.close(id);
        }
    }

    /// Sends waiting rounds on free slots.
    fn send_batches(&mut self, now: Instant) {
        let first = self.first_shared();
        for (id, slot) in &mut self.slots {
            // The first shared slot takes any round. The others take rounds that waited too long.
            let spill_at = || {
                self.queue
                    .values()
                    .next()
                    .map(|at| *at + limits::LEASE_SPILL_WAIT)
            };
            let takes_any = !slot.is_shared() || Some(*id) == first;
            if slot.free_at().is_none_or(|at| now < at)
                || !takes_any && spill_at().is_none_or(|at| now < at)
            {
                continue;
            }
            let mut batch = Vec::new();
            match &mut slot.kind {
                UpstreamKind::Shared => {
                    while batch.len() < limits::LEASE_BATCH
                        && let Some((round, _)) = self.queue.pop_first()
                    {
                        batch.push(round);
                    }
                }
                UpstreamKind::Isolated(owner) => {
                    if let Some((connection, round)) = self.isolated.pop() {
                        *owner = Some(connection);
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
            self.actions.push_back(Action::Send { slot: *id, leases });
            slot.send(batch, now);
        }
    }

    /// Opens missing slots, one of each kind at a time.
    fn open_slots(&mut self, now: Instant) {
        let shared = self.slots.values().filter(|slot| slot.is_shared());
        if !self.queue.is_empty() && shared.count() == 0
            || self.next_shared_slot_at(now).is_some_and(|at| now >= at)
        {
            self.open(UpstreamKind::Shared, now);
        }
        let isolated = self.slots.values().filter(|slot| !slot.is_shared());
        let all = isolated.clone().count();
        let idle = isolated.filter(|slot| slot.in_flight.is_empty()).count();
        if idle == 0 && all < limits::LEASE_ISOLATED_STREAMS && self.isolated.has_ready() {
            self.open(UpstreamKind::Isolated(None), now);
        }
    }

    fn open(&mut self, kind: UpstreamKind, now: Instant) {
        self.last_slot += 1;
        self.slots
            .insert(self.last_slot, UpstreamStream::new(kind, now));
        self.actions.push_back(Action::Connect {
            slot: self.last_slot,
            generation: 0,
            reason: ReconnectReason::Needed,
        });
    }

    /// Returns when to open one more shared slot: the oldest waiting round will have waited too
    /// long, although all shared slots respond.
    fn next_shared_slot_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.queue.values().next()?;
        let mut shared = self.slots.values().filter(|slot| slot.is_shared());
        let busy = |slot: &UpstreamStream| {
            slot.first().is_some() && slot.waited(now) < limits::LEASE_BLOCKED_TIME
        };
        let few = shared.clone().count() < limits::LEASE_SHARED_STREAMS;
        (few && shared.all(busy)).then(|| *waits + limits::LEASE_NEW_STREAM_WAIT)
    }

    /// Closes slots that have been idle. The first shared slot stays while there are clients.
    fn close_slots(&mut self, now: Instant) {
        let idle: Vec<u64> = self
            .slots
            .iter()
            .filter(|(id, slot)| {
                self.idle_until(**id, slot)
                    .is_some_and(|until| now >= until)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.requeue_in_flight(id, now);
            self.close(id);
        }
    }

    /// Returns when a slot will have been idle for long enough to be closed.
    fn idle_until(&self, id: u64, slot: &UpstreamStream) -> Option<Instant> {
        if self.rounds.streams() == 0 {
            return Some(self.unused_since + limits::LEASE_LINGER);
        }
        let is_first = self.first_shared() == Some(id);
        (slot.in_flight.is_empty() && !is_first).then(|| slot.since + limits::LEASE_STREAM_IDLE)
    }

    /// Returns the shared slot that stays while there are clients.
    fn first_shared(&self) -> Option<u64> {
        let mut slots = self.slots.iter();
        slots.find(|(_, slot)| slot.is_shared()).map(|(id, _)| *id)
    }

    /// Returns when a slot needs the next decision.
    fn slot_due_at(&self, id: u64, slot: &UpstreamStream, now: Instant) -> Option<Instant> {
        let overdue = slot
            .first()
            .map(|_| slot.since + self.response_timeout(slot, now));
        let waits = match slot.kind {
            UpstreamKind::Shared if self.first_shared() == Some(id) => {
                self.queue.values().next().map(|_| now)
            }
            UpstreamKind::Shared => self
                .queue
                .values()
                .next()
                .map(|at| *at + limits::LEASE_SPILL_WAIT),
            UpstreamKind::Isolated(_) => self.isolated.has_ready().then_some(now),
        };
        let send = slot.free_at().and_then(|free| Some(free.max(waits?)));
        let due = [overdue, send, self.idle_until(id, slot)];
        due.into_iter().flatten().min()
    }
}
