//! Those who wait until all has been told up to where etcd is (W8).

use std::collections::BTreeMap;

use super::action::Token;

/// Who waits, and for what.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    waiting: BTreeMap<Token, Barrier>,
    /// Not above any [`Barrier::before`].
    least_before: u64,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy)]
struct Barrier {
    /// An answer to a progress request with a higher number, of the stream that is up.
    after: u64,
    /// That it speaks for all s-watchers opened before this one.
    before: u64,
    /// And is not below what had been seen when it was asked for.
    floor: i64,
}

impl Barriers {
    /// Somebody waits from here on, when `sent` progress requests have been sent, `opened`
    /// s-watchers have been opened, and `seen` is the highest revision. Who waits already goes on.
    pub(super) fn add(&mut self, token: Token, sent: u64, opened: u64, seen: i64) {
        if self.waiting.is_empty() {
            self.least_before = opened;
        }
        self.waiting.entry(token).or_insert(Barrier {
            after: sent,
            before: opened,
            floor: seen,
        });
    }

    /// Somebody waits no more.
    pub(super) fn remove(&mut self, token: Token) {
        self.waiting.remove(&token);
    }

    /// Nobody waits any more; who did.
    pub(super) fn abandon(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    /// The stream will be another, on which nothing was asked yet.
    pub(super) fn new_stream(&mut self) {
        for barrier in self.waiting.values_mut() {
            barrier.after = 0;
        }
    }

    /// History is only so long now.
    pub(super) fn history_is(&mut self, revision: i64) {
        for barrier in self.waiting.values_mut() {
            barrier.floor = barrier.floor.min(revision);
        }
    }

    /// Whether an answer would help anybody while this s-watcher, and others opened after it, are
    /// not live.
    pub(super) fn any_before(&self, first_unlive: Option<u64>) -> bool {
        !self.waiting.is_empty() && first_unlive.is_none_or(|first| self.least_before <= first)
    }

    /// An answer came: to this request or a later one, at this revision, and `behind` is the first
    /// s-watcher that it does not speak for. Hands out whose barrier stands. Whether all who could
    /// hope for it were helped.
    pub(super) fn answered(
        &mut self,
        number: u64,
        revision: i64,
        behind: u64,
        mut stands: impl FnMut(Token),
    ) -> bool {
        let mut helped = true;
        self.least_before = u64::MAX;
        self.waiting.retain(|token, barrier| {
            let late = number <= barrier.after;
            let done = !late && behind >= barrier.before && revision >= barrier.floor;
            helped &= late || done;
            if done {
                stands(*token);
            } else {
                self.least_before = self.least_before.min(barrier.before);
            }
            !done
        });
        helped
    }
}
