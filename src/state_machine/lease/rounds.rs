//! Rounds of heartbeats, and what is known of each lease.
//!
//! A *round* is one upstream heartbeat of a lease together with the client heartbeats that its
//! response answers. A lease has at most two rounds. One is in flight, and no client can join it
//! (L2). The other waits for it to return, and clients that arrive meanwhile join that one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::api::{ConnectionId, StreamId};
use crate::limits;

/// Id of a round. A later round has a higher id.
pub(super) type RoundId = u64;

/// Client streams, leases and rounds of one identity.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    streams: HashMap<StreamId, StreamState>,
    leases: HashMap<i64, Lease>,
    /// Leases that were busy or fresh at the last sweep.
    alive: usize,
    rounds: HashMap<RoundId, Round>,
    last: RoundId,
    /// No waiter is overdue before this time.
    overdue_at: Option<Instant>,
}

#[derive(Debug)]
struct StreamState {
    connection: ConnectionId,
    /// Rounds that the stream waits for, each with the number of its heartbeats. Few.
    pending: Vec<(RoundId, u32)>,
    half_closed: bool,
}

#[derive(Debug, Default)]
struct Lease {
    /// Round in flight.
    sent: Option<RoundId>,
    /// Round that is sent next.
    waiting: Option<RoundId>,
    /// The lease cannot expire at etcd before this time: the TTL, counted from the sending of the
    /// last answered heartbeat.
    fresh_until: Option<Instant>,
    /// Round that waits for a TTL check of the lease.
    checking: Option<RoundId>,
    /// etcd has refused the lease: until then its heartbeats are sent alone, fresh or not.
    refused_until: Option<Instant>,
}

#[derive(Debug)]
struct Round {
    lease: i64,
    /// Each waiting stream once, with the start of its wait. Some may have closed.
    waiters: Vec<(StreamId, Instant)>,
    /// Number of `waiters` that are still open.
    live: usize,
}

impl Round {
    fn add(&mut self, stream: StreamId, since: Instant, streams: &HashMap<StreamId, StreamState>) {
        // Closed streams are removed, so that the list does not grow without bound.
        if self.waiters.len() > 2 * self.live + 16 {
            self.waiters.retain(|(each, _)| streams.contains_key(each));
        }
        self.waiters.push((stream, since));
        self.live += 1;
    }
}

/// Consequences of a response of etcd.
#[derive(Debug, Default)]
pub(super) struct RoundResult {
    /// Streams that receive the response, and how many times.
    pub(super) waiters: Vec<(StreamId, u32)>,
    /// Those of them that are half-closed and have now received all their responses.
    pub(super) done: Vec<StreamId>,
    /// Next round of the lease, which can be sent now.
    pub(super) next: Option<RoundId>,
}

/// Result of a client heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JoinResult {
    /// It started a round that can be sent now.
    Ready(RoundId),
    /// It started a round that waits for the one in flight.
    Queued,
    /// It joined an existing round.
    Merged,
    /// Its stream has closed.
    StreamClosed,
}

impl Rounds {
    /// Adds a client stream.
    pub(super) fn open(&mut self, stream: StreamId, connection: ConnectionId) {
        let state = StreamState {
            connection,
            pending: Vec::new(),
            half_closed: false,
        };
        self.streams.insert(stream, state);
    }

    /// Returns the number of client streams.
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Adds a client heartbeat to the waiting round of its lease.
    pub(super) fn join(&mut self, stream: StreamId, id: i64, now: Instant) -> JoinResult {
        if !self.streams.contains_key(&stream) {
            return JoinResult::StreamClosed;
        }
        self.sweep(now);
        let lease = self.leases.entry(id).or_default();
        let (round, joined) = match lease.waiting {
            Some(round) => (round, JoinResult::Merged),
            None => {
                self.last += 1;
                lease.waiting = Some(self.last);
                let state = Round {
                    lease: id,
                    waiters: Vec::new(),
                    live: 0,
                };
                self.rounds.insert(self.last, state);
                match lease.sent {
                    Some(_) => (self.last, JoinResult::Queued),
                    None => (self.last, JoinResult::Ready(self.last)),
                }
            }
        };
        self.wait(stream, round, 1, now);
        self.overdue_at
            .get_or_insert_with(|| now + limits::WAIT_FOR_ENDPOINT);
        joined
    }

    /// Makes a stream wait for `times` more responses of a round.
    fn wait(&mut self, id: StreamId, round: RoundId, times: u32, since: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match stream.pending.iter_mut().find(|(each, _)| *each == round) {
            Some((_, count)) => *count += times,
            None => {
                stream.pending.push((round, times));
                if let Some(state) = self.rounds.get_mut(&round) {
                    state.add(id, since, &self.streams);
                }
            }
        }
    }

    /// Marks a stream as half-closed. Returns true if all its heartbeats are answered.
    pub(super) fn half_close(&mut self, stream: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return false;
        };
        stream.half_closed = true;
        stream.pending.is_empty()
    }

    /// Removes a stream. Returns the rounds that are dropped: not yet sent, and without waiters.
    pub(super) fn close(&mut self, stream: StreamId) -> Vec<RoundId> {
        let Some(stream) = self.streams.remove(&stream) else {
            return Vec::new();
        };
        let mut dropped = Vec::new();
        for (id, _) in stream.pending {
            let Some(round) = self.rounds.get_mut(&id) else {
                continue;
            };
            round.live -= 1;
            let lease = self.leases.get_mut(&round.lease);
            if round.live == 0
                && let Some(lease) = lease
                && lease.waiting.take_if(|waiting| *waiting == id).is_some()
            {
                self.rounds.remove(&id);
                dropped.push(id);
            }
        }
        dropped
    }

    /// Returns the lease of a round.
    pub(super) fn lease(&self, round: RoundId) -> Option<i64> {
        self.rounds.get(&round).map(|round| round.lease)
    }

    /// Returns the connection of the first waiter that is still open.
    pub(super) fn connection(&self, round: RoundId) -> Option<ConnectionId> {
        let mut waiters = self.rounds.get(&round)?.waiters.iter();
        waiters.find_map(|(stream, _)| Some(self.streams.get(stream)?.connection))
    }

    /// Returns whether the lease of the round cannot have expired yet.
    pub(super) fn is_fresh(&self, round: RoundId, now: Instant) -> bool {
        let lease = self.lease(round).and_then(|id| self.leases.get(&id));
        lease.is_some_and(|lease| lease.is_fresh(now))
    }

    /// Marks the lease of the round as refused until a time.
    pub(super) fn mark_refused(&mut self, round: RoundId, until: Instant) {
        if let Some(lease) = self.lease_mut(round) {
            lease.refused_until = Some(until);
        }
    }

    /// Returns whether etcd refused the lease of the round recently.
    pub(super) fn is_refused(&self, round: RoundId, now: Instant) -> bool {
        let lease = self.lease(round).and_then(|id| self.leases.get(&id));
        lease.is_some_and(|lease| lease.refused_until.is_some_and(|until| now < until))
    }

    /// Makes the round wait for a TTL check of its lease.
    pub(super) fn wait_for_ttl_check(&mut self, round: RoundId) {
        if let Some(lease) = self.lease_mut(round) {
            lease.checking = Some(round);
        }
    }

    /// Handles a TTL check: the lease lives at least until `lives`, if that is known.
    ///
    /// Returns the round that waited for the check, if a client still waits for the round.
    pub(super) fn ttl_checked(&mut self, id: i64, alive_until: Option<Instant>) -> Option<RoundId> {
        let lease = self.leases.get_mut(&id)?;
        lease.fresh_until = lease.fresh_until.max(alive_until);
        let round = lease.checking.take()?;
        (lease.waiting == Some(round)).then_some(round)
    }

    fn lease_mut(&mut self, round: RoundId) -> Option<&mut Lease> {
        let id = self.lease(round)?;
        self.leases.get_mut(&id)
    }

    /// Marks the round as in flight.
    pub(super) fn sent(&mut self, round: RoundId) {
        if let Some(lease) = self.lease_mut(round) {
            lease.waiting.take_if(|waiting| *waiting == round);
            lease.sent = Some(round);
        }
    }

    /// Handles the response to a round that was sent at `sent`. A zero `ttl` means expired.
    pub(super) fn answered(&mut self, id: RoundId, sent: Instant, ttl: Duration) -> RoundResult {
        let mut answered = RoundResult::default();
        let Some(round) = self.rounds.remove(&id) else {
            return answered;
        };
        if let Some(lease) = self.leases.get_mut(&round.lease) {
            lease.sent = None;
            // A time that the clock cannot express counts as none.
            lease.fresh_until = sent.checked_add(ttl).filter(|_| !ttl.is_zero());
            answered.next = lease.waiting;
        }
        for (stream_id, _) in round.waiters {
            let Some(stream) = self.streams.get_mut(&stream_id) else {
                continue;
            };
            if let Some(at) = stream.pending.iter().position(|(each, _)| *each == id) {
                let (_, times) = stream.pending.swap_remove(at);
                answered.waiters.push((stream_id, times));
                if stream.half_closed && stream.pending.is_empty() {
                    answered.done.push(stream_id);
                }
            }
        }
        answered
    }

    /// Handles the loss of a round in flight. Returns true if it must be sent again.
    ///
    /// Clients of the waiting round join it, because it leaves after their heartbeats arrived.
    pub(super) fn lost(&mut self, id: RoundId) -> bool {
        let Some(round) = self.rounds.get(&id) else {
            return false;
        };
        let (live, lease) = (round.live, round.lease);
        let Some(lease) = self.leases.get_mut(&lease) else {
            return false;
        };
        lease.sent = None;
        let next = lease.waiting.replace(id);
        if let Some(next) = next {
            self.merge(next, id);
        } else if live == 0 {
            lease.waiting = None;
            self.rounds.remove(&id);
            return false;
        }
        true
    }

    fn merge(&mut self, from: RoundId, into: RoundId) {
        let Some(round) = self.rounds.remove(&from) else {
            return;
        };
        for (stream_id, since) in round.waiters {
            let Some(stream) = self.streams.get_mut(&stream_id) else {
                continue;
            };
            if let Some(at) = stream.pending.iter().position(|(each, _)| *each == from) {
                let (_, times) = stream.pending.swap_remove(at);
                self.wait(stream_id, into, times, since);
            }
        }
    }

    /// Returns the streams that wait for a round.
    pub(super) fn waiters(&self, id: RoundId) -> Vec<StreamId> {
        let round = self.rounds.get(&id);
        let waiters = round.into_iter().flat_map(|round| &round.waiters);
        let is_waiting = |stream_id: &StreamId| self.is_waiting(*stream_id, id);
        waiters
            .map(|(stream_id, _)| *stream_id)
            .filter(is_waiting)
            .collect()
    }

    fn is_waiting(&self, stream: StreamId, round: RoundId) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| stream.pending.iter().any(|(each, _)| *each == round))
    }

    /// Returns the earliest time at which [`Rounds::overdue`] may find a stream.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.overdue_at.filter(|_| !self.rounds.is_empty())
    }

    /// Returns the streams that have waited for the maximum time of a call (E4), or a little
    /// longer.
    ///
    /// Cost: proportional to all waiters.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<StreamId> {
        let mut overdue = Vec::new();
        let mut next: Option<Instant> = None;
        for (id, round) in &self.rounds {
            for (stream_id, since) in &round.waiters {
                if !self.is_waiting(*stream_id, *id) {
                    continue;
                }
                let until = *since + limits::WAIT_FOR_ENDPOINT;
                if until <= now {
                    overdue.push(*stream_id);
                } else {
                    next = Some(next.map_or(until, |next| next.min(until)));
                }
            }
        }
        // A scan visits all waiters, so scans are at least LEASE_CHECK_INTERVAL apart.
        self.overdue_at = next.map(|next| next.max(now + limits::LEASE_CHECK_INTERVAL));
        overdue.sort_unstable();
        overdue.dedup();
        overdue
    }

    /// Forgets idle leases that may have expired, and all idle leases if there are too many (S1).
    fn sweep(&mut self, now: Instant) {
        if self.leases.len() <= 2 * self.alive + 64 {
            return;
        }
        let busy = |lease: &Lease| lease.sent.is_some() || lease.waiting.is_some();
        self.leases
            .retain(|_, lease| busy(lease) || lease.is_fresh(now));
        if self.leases.len() > limits::LEASES_REMEMBERED {
            self.leases.retain(|_, lease| busy(lease));
        }
        self.alive = self.leases.len();
    }
}

impl Lease {
    fn is_fresh(&self, now: Instant) -> bool {
        let before = |until: Instant| now < until;
        self.fresh_until.is_some_and(before) && !self.refused_until.is_some_and(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets one client renew each of these leases once.
    fn renew(rounds: &mut Rounds, leases: std::ops::Range<i64>, ttl: Duration, now: Instant) {
        let stream = StreamId {
            worker: 0,
            stream: 1,
        };
        rounds.open(
            stream,
            ConnectionId {
                worker: 0,
                connection: 1,
            },
        );
        for lease in leases {
            let JoinResult::Ready(round) = rounds.join(stream, lease, now) else {
                panic!("nothing is under way for it");
            };
            rounds.sent(round);
            assert_eq!(rounds.answered(round, now, ttl).waiters.len(), 1);
        }
    }

    #[test]
    fn leases_are_forgotten_when_they_may_have_expired_or_are_too_many() {
        let start = Instant::now();
        let mut rounds = Rounds::default();
        let second = Duration::from_secs(1);
        renew(&mut rounds, 0..10_000, second, start);
        assert!(rounds.leases.len() >= 10_000);
        renew(&mut rounds, 10_000..40_000, second * 1_000, start + second);
        assert!(!rounds.leases.contains_key(&0) && rounds.leases.contains_key(&39_999));
        let max = limits::LEASES_REMEMBERED as i64;
        renew(&mut rounds, 40_000..4 * max, second * 1_000, start + second);
        assert!(rounds.leases.len() <= 2 * limits::LEASES_REMEMBERED + 64);
    }
}
