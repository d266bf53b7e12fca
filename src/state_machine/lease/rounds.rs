//! Who waits for what: a *round* is one heartbeat to etcd for a lease, with the clients' heartbeats
//! that its answer answers.
//!
//! A lease has at most two: one on its way, which nobody can join any more (L2), and one that waits
//! for it to come back, which whoever comes meanwhile joins.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::api::{PeerId, StreamId};
use crate::limits;

/// Names a round; a later one has a higher number.
pub(super) type RoundId = u64;

/// Streams, leases and rounds.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    streams: HashMap<StreamId, Stream>,
    leases: HashMap<i64, Lease>,
    /// Leases that were busy or fresh at the last look.
    alive: usize,
    rounds: HashMap<RoundId, Round>,
    last: RoundId,
    /// Nobody has waited for too long before then.
    patience: Option<Instant>,
}

#[derive(Debug)]
struct Stream {
    peer: PeerId,
    /// The rounds it waits for, and for how many answers of each. Few.
    pending: Vec<(RoundId, u32)>,
    half_closed: bool,
}

#[derive(Debug, Default)]
struct Lease {
    /// On its way to etcd.
    sent: Option<RoundId>,
    /// The next one.
    waiting: Option<RoundId>,
    /// It cannot expire at etcd before: counted from the sending of the last heartbeat that was
    /// answered.
    fresh_until: Option<Instant>,
    /// The round that waits for etcd's word on the lease.
    examined: Option<RoundId>,
    /// It was refused: whatever is known of it, until then its heartbeats end their streams.
    refused_until: Option<Instant>,
}

#[derive(Debug)]
struct Round {
    lease: i64,
    /// Each once, and since when; some may have left.
    waiters: Vec<(StreamId, Instant)>,
    /// Those who have not.
    live: usize,
}

impl Round {
    fn add(&mut self, stream: StreamId, since: Instant, streams: &HashMap<StreamId, Stream>) {
        // Who comes and goes leaves nothing behind that grows.
        if self.waiters.len() > 2 * self.live + 16 {
            self.waiters.retain(|(each, _)| streams.contains_key(each));
        }
        self.waiters.push((stream, since));
        self.live += 1;
    }
}

/// What an answer is good for.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Who gets it, and how often.
    pub(super) waiters: Vec<(StreamId, u32)>,
    /// Those of them that now have all their answers and want no more.
    pub(super) done: Vec<StreamId>,
    /// The lease's next round, which can go now.
    pub(super) next: Option<RoundId>,
}

/// What became of a heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// A round was begun for it, which can go now.
    Ready(RoundId),
    /// A round was begun for it, which waits for one on its way.
    Waits,
    /// It shares a round that was there.
    Merged,
    /// Its stream is not there.
    Nobody,
}

impl Rounds {
    /// A client's stream begins.
    pub(super) fn open(&mut self, stream: StreamId, peer: PeerId) {
        let begun = Stream {
            peer,
            pending: Vec::new(),
            half_closed: false,
        };
        self.streams.insert(stream, begun);
    }

    /// How many streams there are.
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// A client's heartbeat.
    pub(super) fn join(&mut self, stream: StreamId, id: i64, now: Instant) -> Joined {
        if !self.streams.contains_key(&stream) {
            return Joined::Nobody;
        }
        self.sweep(now);
        let lease = self.leases.entry(id).or_default();
        let (round, joined) = match lease.waiting {
            Some(round) => (round, Joined::Merged),
            None => {
                self.last += 1;
                lease.waiting = Some(self.last);
                let begun = Round {
                    lease: id,
                    waiters: Vec::new(),
                    live: 0,
                };
                self.rounds.insert(self.last, begun);
                match lease.sent {
                    Some(_) => (self.last, Joined::Waits),
                    None => (self.last, Joined::Ready(self.last)),
                }
            }
        };
        self.wait(stream, round, 1, now);
        self.patience
            .get_or_insert_with(|| now + limits::WAIT_FOR_ENDPOINT);
        joined
    }

    /// So many more answers of a round for a stream.
    fn wait(&mut self, id: StreamId, round: RoundId, times: u32, since: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match stream.pending.iter_mut().find(|(each, _)| *each == round) {
            Some((_, count)) => *count += times,
            None => {
                stream.pending.push((round, times));
                if let Some(begun) = self.rounds.get_mut(&round) {
                    begun.add(id, since, &self.streams);
                }
            }
        }
    }

    /// The client sends no more; true when nothing of its is unanswered.
    pub(super) fn half_close(&mut self, stream: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return false;
        };
        stream.half_closed = true;
        stream.pending.is_empty()
    }

    /// The stream is over. Rounds that nobody waits for any more and that were not sent are given
    /// up; these are they.
    pub(super) fn close(&mut self, stream: StreamId) -> Vec<RoundId> {
        let Some(stream) = self.streams.remove(&stream) else {
            return Vec::new();
        };
        let mut given_up = Vec::new();
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
                given_up.push(id);
            }
        }
        given_up
    }

    /// The lease of a round.
    pub(super) fn lease(&self, round: RoundId) -> Option<i64> {
        self.rounds.get(&round).map(|round| round.lease)
    }

    /// Whose heartbeat it was first.
    pub(super) fn peer(&self, round: RoundId) -> Option<PeerId> {
        let mut waiters = self.rounds.get(&round)?.waiters.iter();
        waiters.find_map(|(stream, _)| Some(self.streams.get(stream)?.peer))
    }

    /// Whether the round's lease cannot have expired yet.
    pub(super) fn is_fresh(&self, round: RoundId, now: Instant) -> bool {
        let lease = self.lease(round).and_then(|id| self.leases.get(&id));
        lease.is_some_and(|lease| lease.is_fresh(now))
    }

    /// The round's lease is refused, and will be for a while.
    pub(super) fn distrust(&mut self, round: RoundId, until: Instant) {
        if let Some(lease) = self.lease_of(round) {
            lease.refused_until = Some(until);
        }
    }

    /// Whether the round's lease was refused lately.
    pub(super) fn is_refused(&self, round: RoundId, now: Instant) -> bool {
        let lease = self.lease(round).and_then(|id| self.leases.get(&id));
        lease.is_some_and(|lease| lease.refused_until.is_some_and(|until| now < until))
    }

    /// The round waits for etcd's word on its lease.
    pub(super) fn examine(&mut self, round: RoundId) {
        if let Some(lease) = self.lease_of(round) {
            lease.examined = Some(round);
        }
    }

    /// etcd's word on a lease: the round that waited for it, if somebody still waits for that. The
    /// lease lives at least until then, if it does.
    pub(super) fn examined(&mut self, id: i64, lives: Option<Instant>) -> Option<RoundId> {
        let lease = self.leases.get_mut(&id)?;
        lease.fresh_until = lease.fresh_until.max(lives);
        let round = lease.examined.take()?;
        (lease.waiting == Some(round)).then_some(round)
    }

    fn lease_of(&mut self, round: RoundId) -> Option<&mut Lease> {
        let id = self.lease(round)?;
        self.leases.get_mut(&id)
    }

    /// The round is on its way.
    pub(super) fn sent(&mut self, round: RoundId) {
        if let Some(lease) = self.lease_of(round) {
            lease.waiting.take_if(|waiting| *waiting == round);
            lease.sent = Some(round);
        }
    }

    /// etcd answered it, having been sent it at `sent`; the lease lives on for `ttl` or is no more.
    pub(super) fn answered(&mut self, id: RoundId, sent: Instant, ttl: Duration) -> Answered {
        let mut answered = Answered::default();
        let Some(round) = self.rounds.remove(&id) else {
            return answered;
        };
        if let Some(lease) = self.leases.get_mut(&round.lease) {
            lease.sent = None;
            // A time that the clock cannot express is as good as none.
            lease.fresh_until = sent.checked_add(ttl).filter(|_| !ttl.is_zero());
            answered.next = lease.waiting;
        }
        for (name, _) in round.waiters {
            let Some(stream) = self.streams.get_mut(&name) else {
                continue;
            };
            if let Some(at) = stream.pending.iter().position(|(each, _)| *each == id) {
                let (_, times) = stream.pending.swap_remove(at);
                answered.waiters.push((name, times));
                if stream.half_closed && stream.pending.is_empty() {
                    answered.done.push(name);
                }
            }
        }
        answered
    }

    /// Its answer will not come: true when it is to be sent again. Whoever came meanwhile joins it,
    /// since it leaves after them.
    pub(super) fn unsent(&mut self, id: RoundId) -> bool {
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
        for (name, since) in round.waiters {
            let Some(stream) = self.streams.get_mut(&name) else {
                continue;
            };
            if let Some(at) = stream.pending.iter().position(|(each, _)| *each == from) {
                let (_, times) = stream.pending.swap_remove(at);
                self.wait(name, into, times, since);
            }
        }
    }

    /// Who waits for it.
    pub(super) fn waiters(&self, id: RoundId) -> Vec<StreamId> {
        let round = self.rounds.get(&id);
        let waiters = round.into_iter().flat_map(|round| &round.waiters);
        let waits = |name: &StreamId| self.waits(*name, id);
        waiters.map(|(name, _)| *name).filter(waits).collect()
    }

    fn waits(&self, stream: StreamId, round: RoundId) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| stream.pending.iter().any(|(each, _)| *each == round))
    }

    /// When [`Rounds::impatient`] may have somebody to tell of, and not before.
    pub(super) fn patience(&self) -> Option<Instant> {
        self.patience.filter(|_| !self.rounds.is_empty())
    }

    /// Who has waited for as long as calls wait for an endpoint (E4), or a little longer. Looks at
    /// everybody who waits.
    pub(super) fn impatient(&mut self, now: Instant) -> Vec<StreamId> {
        let mut impatient = Vec::new();
        let mut next: Option<Instant> = None;
        for (id, round) in &self.rounds {
            for (name, since) in &round.waiters {
                if !self.waits(*name, *id) {
                    continue;
                }
                let until = *since + limits::WAIT_FOR_ENDPOINT;
                if until <= now {
                    impatient.push(*name);
                } else {
                    next = Some(next.map_or(until, |next| next.min(until)));
                }
            }
        }
        // Looking costs as much as there are: not for each of them by the clock.
        self.patience = next.map(|next| next.max(now + limits::LEASE_CHECK_INTERVAL));
        impatient.sort_unstable();
        impatient.dedup();
        impatient
    }

    /// Leases that nothing is under way for are forgotten when it is known that they may have
    /// expired, and earlier when there are too many (S1).
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

    /// One client that renews ever new leases, each once.
    fn renew(rounds: &mut Rounds, leases: std::ops::Range<i64>, ttl: Duration, now: Instant) {
        let stream = StreamId {
            worker: 0,
            stream: 1,
        };
        rounds.open(stream, PeerId { worker: 0, peer: 1 });
        for lease in leases {
            let Joined::Ready(round) = rounds.join(stream, lease, now) else {
                panic!("nothing is under way for it");
            };
            rounds.sent(round);
            assert_eq!(rounds.answered(round, now, ttl).waiters.len(), 1);
        }
    }

    #[test]
    fn leases_are_forgotten_when_they_may_have_expired_or_are_too_many() {
        let begun = Instant::now();
        let mut rounds = Rounds::default();
        let second = Duration::from_secs(1);
        renew(&mut rounds, 0..10_000, second, begun);
        assert!(rounds.leases.len() >= 10_000);
        renew(&mut rounds, 10_000..40_000, second * 1_000, begun + second);
        assert!(!rounds.leases.contains_key(&0) && rounds.leases.contains_key(&39_999));
        let most = limits::LEASES_REMEMBERED as i64;
        renew(
            &mut rounds,
            40_000..4 * most,
            second * 1_000,
            begun + second,
        );
        assert!(rounds.leases.len() <= 2 * limits::LEASES_REMEMBERED + 64);
    }
}
