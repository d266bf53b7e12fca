//! Slot of an upstream stream: one stream to etcd at a time, and its rounds in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::api::ConnectionId;
use super::rounds::RoundId;
use crate::limits;

/// Which heartbeats a slot carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpstreamKind {
    /// Any heartbeats, many at a time.
    Shared,
    /// Heartbeats that may block, one at a time; the client connection of the one in flight.
    Isolated(Option<ConnectionId>),
}

/// State of a slot.
#[derive(Debug)]
pub(super) struct UpstreamStream {
    pub(super) kind: UpstreamKind,
    pub(super) generation: u64,
    /// The stream is open.
    pub(super) is_open: bool,
    /// Rounds sent and not answered, in the order of sending, which is that of the responses.
    pub(super) in_flight: VecDeque<RoundId>,
    /// Time at which the rounds in flight were sent.
    pub(super) sent: Instant,
    /// Time since which the first round in flight is the first, or none is in flight.
    pub(super) since: Instant,
    /// Earliest time of the next batch.
    next_send: Instant,
}

impl UpstreamStream {
    pub(super) fn new(kind: UpstreamKind, now: Instant) -> UpstreamStream {
        UpstreamStream {
            kind,
            generation: 0,
            is_open: false,
            in_flight: VecDeque::new(),
            sent: now,
            since: now,
            next_send: now,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.kind == UpstreamKind::Shared
    }

    /// Returns the first round in flight of the open stream.
    pub(super) fn first(&self) -> Option<RoundId> {
        self.in_flight.front().copied().filter(|_| self.is_open)
    }

    /// Returns when the slot can send; `None` while rounds are in flight or no stream is open.
    pub(super) fn free_at(&self) -> Option<Instant> {
        (self.is_open && self.in_flight.is_empty()).then_some(self.next_send)
    }

    /// Records that these rounds were sent.
    pub(super) fn send(&mut self, rounds: impl IntoIterator<Item = RoundId>, now: Instant) {
        self.in_flight.extend(rounds);
        self.sent = now;
        self.since = now;
        // After a large batch a short wait lets more heartbeats join, at almost no cost each.
        self.next_send = if self.in_flight.len() < limits::LEASE_LARGE_BATCH {
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
