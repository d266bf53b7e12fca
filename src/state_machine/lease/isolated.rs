//! Rounds that may block the stream they are sent on, each to be sent alone: in turn by whose they
//! are, so that one client with many of them leaves room to the others (L4).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::api::PeerId;
use super::rounds::RoundId;
use crate::limits;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct IsolatedLeases {
    /// Whose each round is.
    rounds: HashMap<RoundId, PeerId>,
    waiting: HashMap<PeerId, Waiting>,
    /// Everybody in `waiting`, in the order of their turns.
    turns: BTreeMap<u64, PeerId>,
    last_turn: u64,
    /// Lanes that each has in use.
    using: HashMap<PeerId, usize>,
}

#[derive(Debug)]
struct Waiting {
    turn: u64,
    rounds: BTreeSet<RoundId>,
}

impl IsolatedLeases {
    /// The round waits for a lane.
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

    /// Takes a round whose turn it is and counts its lane in; `None` when nobody who waits may have
    /// one more.
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

    /// Whether [`IsolatedLeases::pop`] would give one.
    pub(super) fn any(&self) -> bool {
        self.next().is_some()
    }

    /// The first in turn who may have a lane. Few may not, since the lanes are few.
    fn next(&self) -> Option<PeerId> {
        let may = |peer: &&PeerId| {
            let using = self.using.get(peer).copied().unwrap_or_default();
            using < limits::LEASE_ISOLATED_STREAMS_PER_CONNECTION
        };
        self.turns.values().find(may).copied()
    }

    /// The round waits no longer, if it did.
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

    /// A lane is in use for this one.
    pub(super) fn begin(&mut self, peer: PeerId) {
        *self.using.entry(peer).or_default() += 1;
    }

    /// It is not any more.
    pub(super) fn end(&mut self, peer: PeerId) {
        if let Some(count) = self.using.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.using.remove(&peer);
            }
        }
    }
}
