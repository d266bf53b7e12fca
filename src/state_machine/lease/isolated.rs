//! Queue of rounds that may block an upstream stream. Each is sent alone on a stream.
//!
//! Client connections take turns and have a quota of streams each, so that a connection with many
//! such leases does not delay the others (L4).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::api::ConnectionId;
use super::rounds::RoundId;
use crate::limits;

/// Rounds that wait for an isolated stream, and the isolated streams in use per connection.
#[derive(Debug, Default)]
pub(super) struct IsolatedLeases {
    /// Connection of each waiting round.
    rounds: HashMap<RoundId, ConnectionId>,
    waiting: HashMap<ConnectionId, WaitingRounds>,
    /// Connections in `waiting`, in the order of their turns.
    turns: BTreeMap<u64, ConnectionId>,
    last_turn: u64,
    /// Isolated streams in use by each connection.
    in_use: HashMap<ConnectionId, usize>,
}

#[derive(Debug)]
struct WaitingRounds {
    turn: u64,
    rounds: BTreeSet<RoundId>,
}

impl IsolatedLeases {
    /// Queues a round.
    pub(super) fn push(&mut self, connection: ConnectionId, round: RoundId) {
        self.rounds.insert(round, connection);
        if let Some(waiting) = self.waiting.get_mut(&connection) {
            waiting.rounds.insert(round);
        } else {
            self.queue(connection, BTreeSet::from([round]));
        }
    }

    fn queue(&mut self, connection: ConnectionId, rounds: BTreeSet<RoundId>) {
        self.last_turn += 1;
        let turn = self.last_turn;
        self.turns.insert(turn, connection);
        self.waiting
            .insert(connection, WaitingRounds { turn, rounds });
    }

    /// Takes the next round and counts its stream as in use. Returns `None` if no waiting
    /// connection has quota left.
    pub(super) fn pop(&mut self) -> Option<(ConnectionId, RoundId)> {
        let connection = self.next_connection()?;
        let mut waiting = self.waiting.remove(&connection)?;
        self.turns.remove(&waiting.turn);
        let round = waiting.rounds.pop_first()?;
        self.rounds.remove(&round);
        if !waiting.rounds.is_empty() {
            self.queue(connection, waiting.rounds);
        }
        self.acquire(connection);
        Some((connection, round))
    }

    /// Returns whether [`IsolatedLeases::pop`] would return a round.
    pub(super) fn has_ready(&self) -> bool {
        self.next_connection().is_some()
    }

    /// Returns the first connection in turn with quota left.
    ///
    /// It skips few connections, because the streams in use are few.
    fn next_connection(&self) -> Option<ConnectionId> {
        let has_quota = |connection: &&ConnectionId| {
            let in_use = self.in_use.get(connection).copied().unwrap_or_default();
            in_use < limits::LEASE_ISOLATED_STREAMS_PER_CONNECTION
        };
        self.turns.values().find(has_quota).copied()
    }

    /// Removes a round, if it is queued.
    pub(super) fn remove(&mut self, round: RoundId) {
        let Some(connection) = self.rounds.remove(&round) else {
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(&connection) {
            waiting.rounds.remove(&round);
            if waiting.rounds.is_empty() {
                self.turns.remove(&waiting.turn);
                self.waiting.remove(&connection);
            }
        }
    }

    /// Counts one more stream in use by a connection.
    pub(super) fn acquire(&mut self, connection: ConnectionId) {
        *self.in_use.entry(connection).or_default() += 1;
    }

    /// Counts one stream less in use by a connection.
    pub(super) fn release(&mut self, connection: ConnectionId) {
        if let Some(count) = self.in_use.get_mut(&connection) {
            *count -= 1;
            if *count == 0 {
                self.in_use.remove(&connection);
            }
        }
    }
}
