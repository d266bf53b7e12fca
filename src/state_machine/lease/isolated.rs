//! Queue of rounds that may block an upstream stream. Each is sent alone on a stream.
//!
//! Client connections take turns and have a quota of streams each, so that a connection with many
//! such leases does not delay the others (L4).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::api::PeerId;
use super::rounds::RoundId;
use crate::limits;

/// Rounds that wait for an isolated stream, and the isolated streams in use per connection.
#[derive(Debug, Default)]
pub(super) struct IsolatedLeases {
    /// Connection of each waiting round.
    rounds: HashMap<RoundId, PeerId>,
    waiting: HashMap<PeerId, Waiting>,
    /// Connections in `waiting`, in the order of their turns.
    turns: BTreeMap<u64, PeerId>,
    last_turn: u64,
    /// Isolated streams in use by each connection.
    using: HashMap<PeerId, usize>,
}

#[derive(Debug)]
struct Waiting {
    turn: u64,
    rounds: BTreeSet<RoundId>,
}

impl IsolatedLeases {
    /// Queues a round.
    pub(super) fn push(&mut self, peer: PeerId, round: RoundId) {
        self.rounds.insert(round, peer);
        if let Some(waiting) = self.waiting.get_mut(&peer) {
            waiting.rounds.insert(round);
        } else {
            self.queue(peer, BTreeSet::from([round]));
        }
    }

    fn queue(&mut self, peer: PeerId, rounds: BTreeSet<RoundId>) {
        self.last_turn += 1;
        let turn = self.last_turn;
        self.turns.insert(turn, peer);
        self.waiting.insert(peer, Waiting { turn, rounds });
    }

    /// Takes the next round and counts its stream as in use. Returns `None` if no waiting
    /// connection has quota left.
    pub(super) fn pop(&mut self) -> Option<(PeerId, RoundId)> {
        let peer = self.next()?;
        let mut waiting = self.waiting.remove(&peer)?;
        self.turns.remove(&waiting.turn);
        let round = waiting.rounds.pop_first()?;
        self.rounds.remove(&round);
        if !waiting.rounds.is_empty() {
            self.queue(peer, waiting.rounds);
        }
        self.begin(peer);
        Some((peer, round))
    }

    /// Returns whether [`IsolatedLeases::pop`] would return a round.
    pub(super) fn any(&self) -> bool {
        self.next().is_some()
    }

    /// Returns the first connection in turn with quota left.
    ///
    /// It skips few connections, because the streams in use are few.
    fn next(&self) -> Option<PeerId> {
        let may = |peer: &&PeerId| {
            let using = self.using.get(peer).copied().unwrap_or_default();
            using < limits::LEASE_ISOLATED_STREAMS_PER_CONNECTION
        };
        self.turns.values().find(may).copied()
    }

    /// Removes a round, if it is queued.
    pub(super) fn remove(&mut self, round: RoundId) {
        let Some(peer) = self.rounds.remove(&round) else {
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(&peer) {
            waiting.rounds.remove(&round);
            if waiting.rounds.is_empty() {
                self.turns.remove(&waiting.turn);
                self.waiting.remove(&peer);
            }
        }
    }

    /// Counts one more stream in use by a connection.
    pub(super) fn begin(&mut self, peer: PeerId) {
        *self.using.entry(peer).or_default() += 1;
    }

    /// Counts one stream less in use by a connection.
    pub(super) fn end(&mut self, peer: PeerId) {
        if let Some(count) = self.using.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.using.remove(&peer);
            }
        }
    }
}
