//! Barriers that wait for a response to a progress request (W8).

use std::collections::BTreeMap;

use super::action::BarrierWaiter;

/// The pending barriers of a trunk.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    waiting: BTreeMap<BarrierWaiter, Barrier>,
    /// A lower bound of every [`Barrier::before`].
    least_before: u64,
}

/// Conditions for the response that answers a barrier.
#[derive(Debug, Clone, Copy)]
struct Barrier {
    /// The response is to a progress request with a number above this one, on the open stream.
    after: u64,
    /// The response includes all upstream watchers that were opened before this slot.
    before: u64,
    /// Its revision is at least this one, the highest seen when the barrier was requested.
    floor: i64,
}

impl Barriers {
    /// Adds a barrier, after `sent` progress requests and `opened` upstream watchers, with the
    /// highest revision seen. An earlier barrier of the same waiter stays unchanged.
    pub(super) fn add(&mut self, waiter: BarrierWaiter, sent: u64, opened: u64, seen: i64) {
        if self.waiting.is_empty() {
            self.least_before = opened;
        }
        self.waiting.entry(waiter).or_insert(Barrier {
            after: sent,
            before: opened,
            floor: seen,
        });
    }

    /// Removes the barrier of a waiter.
    pub(super) fn remove(&mut self, waiter: BarrierWaiter) {
        self.waiting.remove(&waiter);
    }

    /// Removes all barriers and returns their waiters.
    pub(super) fn take_all(&mut self) -> Vec<BarrierWaiter> {
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    /// Adapts the barriers to a new stream, on which no progress request was sent yet.
    pub(super) fn reset_requests(&mut self) {
        for barrier in self.waiting.values_mut() {
            barrier.after = 0;
        }
    }

    /// Lowers the floors after a history reset to `revision`.
    pub(super) fn limit_floors(&mut self, revision: i64) {
        for barrier in self.waiting.values_mut() {
            barrier.floor = barrier.floor.min(revision);
        }
    }

    /// Returns whether a response could answer any barrier while `first_not_live`, and possibly
    /// upstream watchers opened after it, are not live.
    pub(super) fn can_answer_any(&self, first_not_live: Option<u64>) -> bool {
        !self.waiting.is_empty() && first_not_live.is_none_or(|first| self.least_before <= first)
    }

    /// Handles a response at `revision` to the progress request with this number or a later one.
    /// `behind` is the first upstream watcher that the response does not include. Calls `answered`
    /// with the waiter of each answered barrier. Returns false if a barrier that was requested
    /// before the progress request is still pending.
    pub(super) fn progress_response(
        &mut self,
        number: u64,
        revision: i64,
        behind: u64,
        mut answered: impl FnMut(BarrierWaiter),
    ) -> bool {
        let mut satisfied = true;
        self.least_before = u64::MAX;
        self.waiting.retain(|waiter, barrier| {
            let late = number <= barrier.after;
            let done = !late && behind >= barrier.before && revision >= barrier.floor;
            satisfied &= late || done;
            if done {
                answered(*waiter);
            } else {
                self.least_before = self.least_before.min(barrier.before);
            }
            !done
        });
        satisfied
    }
}
