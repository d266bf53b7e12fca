//! A lane: one stream to etcd at a time, and what is on its way there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::api::PeerId;
use super::rounds::RoundId;

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
pub(super) struct Lane {
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
}

impl Lane {
    pub(super) fn new(kind: Kind, now: Instant) -> Lane {
        Lane {
            kind,
            generation: 0,
            up: false,
            flight: VecDeque::new(),
            sent: now,
            since: now,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.kind == Kind::Shared
    }

    /// It can take something now.
    pub(super) fn is_free(&self) -> bool {
        self.up && self.flight.is_empty()
    }

    /// These are sent.
    pub(super) fn send(&mut self, rounds: impl IntoIterator<Item = RoundId>, now: Instant) {
        self.flight.extend(rounds);
        self.sent = now;
        self.since = now;
    }

    /// How long the first of what is on its way has been the first; or how long nothing has been.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}
