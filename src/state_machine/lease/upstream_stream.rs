//! Slot of an upstream stream: one stream to etcd at a time, and its rounds in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::api::PeerId;
use super::rounds::RoundId;
use crate::limits;

/// Which heartbeats a slot carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any heartbeats, many at a time.
    Shared,
    /// Heartbeats that may block, one at a time; the client connection of the one in flight.
    Apart(Option<PeerId>),
}

/// State of a slot.
#[derive(Debug)]
pub(super) struct UpstreamStream {
    pub(super) kind: Kind,
    pub(super) generation: u64,
    /// The stream is open.
    pub(super) up: bool,
    /// Rounds sent and not answered, in the order of sending, which is that of the responses.
    pub(super) flight: VecDeque<RoundId>,
    /// When the rounds in flight were sent.
    pub(super) sent: Instant,
    /// Since when the first round in flight is the first, or since when none is in flight.
    pub(super) since: Instant,
    /// Earliest time of the next batch.
    gather: Instant,
}

impl UpstreamStream {
    pub(super) fn new(kind: Kind, now: Instant) -> UpstreamStream {
        UpstreamStream {
            kind,
            generation: 0,
            up: false,
            flight: VecDeque::new(),
            sent: now,
            since: now,
            gather: now,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.kind == Kind::Shared
    }

    /// Returns the first round in flight of the open stream.
    pub(super) fn first(&self) -> Option<RoundId> {
        self.flight.front().copied().filter(|_| self.up)
    }

    /// Returns when the slot can send; `None` while rounds are in flight or no stream is open.
    pub(super) fn free_at(&self) -> Option<Instant> {
        (self.up && self.flight.is_empty()).then_some(self.gather)
    }

    /// Records that these rounds were sent.
    pub(super) fn send(&mut self, rounds: impl IntoIterator<Item = RoundId>, now: Instant) {
        self.flight.extend(rounds);
        self.sent = now;
        self.since = now;
        // After a large batch a short wait lets more heartbeats join, at almost no cost each.
        self.gather = if self.flight.len() < limits::LEASE_LARGE_BATCH {
            now
        } else {
            now + limits::LEASE_BATCH_DELAY
        };
    }

    /// Returns how long the first round in flight has been the first, or none was in flight.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}
