//! A lane: one stream to etcd at a time, and what is on its way there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::api::PeerId;
use super::rounds::RoundId;
use crate::limits;

/// What a lane carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whatever comes, many at a time.
    Shared,
    /// What may block, one at a time; whose it is while there is one.
    Apart(Option<PeerId>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct UpstreamStream {
    pub(super) kind: Kind,
    pub(super) generation: u64,
    /// Its stream is open.
    pub(super) up: bool,
    /// Sent and not answered, in the order of sending, which is that of the answers.
    pub(super) flight: VecDeque<RoundId>,
    /// When these were sent.
    pub(super) sent: Instant,
    /// Since when the first of them is the first, or since when there is none.
    pub(super) since: Instant,
    /// Not before then is more sent.
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

    /// What its stream is at.
    pub(super) fn first(&self) -> Option<RoundId> {
        self.flight.front().copied().filter(|_| self.up)
    }

    /// From when on it can take something; `None` while it has something on its way, or no stream.
    pub(super) fn free_at(&self) -> Option<Instant> {
        (self.up && self.flight.is_empty()).then_some(self.gather)
    }

    /// These are sent.
    pub(super) fn send(&mut self, rounds: impl IntoIterator<Item = RoundId>, now: Instant) {
        self.flight.extend(rounds);
        self.sent = now;
        self.since = now;
        // Where many come, a few more are waited for: they cost next to nothing together.
        self.gather = if self.flight.len() < limits::LEASE_LARGE_BATCH {
            now
        } else {
            now + limits::LEASE_BATCH_DELAY
        };
    }

    /// How long the first of what is on its way has been the first; or how long nothing has been.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}
