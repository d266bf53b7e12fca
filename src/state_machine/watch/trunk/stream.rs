//! The stream that is up: ids, never used twice on it, and which creates are unanswered.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::progress::Progress;
use crate::limits::WATCH_CREATES;

/// A stream that is up. S-watchers go by their slot, the number of their opening.
#[derive(Debug)]
pub(super) struct Up {
    /// `None` on an endpoint whose answers prove nothing.
    pub(super) progress: Option<Progress>,
    /// Whether it shows history as it was.
    pub(super) doubt: Doubt,
    /// What an id of the stream is to us; those of closed s-watchers are gone.
    by_id: HashMap<i64, u64>,
    /// Ids whose create is not answered, in the order of the requests.
    asked: VecDeque<i64>,
    /// Slots whose create was not sent.
    waiting: BTreeSet<u64>,
    /// Slots that are not live: those waiting, and those asked for.
    unlive: BTreeSet<u64>,
    /// Those of them that resume, from a start in the past.
    resuming: BTreeSet<u64>,
    /// The last id given away; 0 means to etcd that it may choose one.
    last_id: i64,
}

/// What a stream's headers say about history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing strange.
    None,
    /// Its store was behind what had been seen.
    Lags,
    /// Its cluster is another.
    Foreign,
}

impl Up {
    pub(super) fn new(progress: Option<Progress>) -> Up {
        Up {
            progress,
            doubt: Doubt::None,
            by_id: HashMap::new(),
            asked: VecDeque::new(),
            waiting: BTreeSet::new(),
            unlive: BTreeSet::new(),
            resuming: BTreeSet::new(),
            last_id: 0,
        }
    }

    /// A slot is to be asked for; it `resumes` when its start is in the past.
    pub(super) fn waits(&mut self, slot: u64, resumes: bool) {
        self.waiting.insert(slot);
        self.unlive.insert(slot);
        if resumes {
            self.resuming.insert(slot);
        }
    }

    /// The next slot whose create may be sent, and the id it gets.
    pub(super) fn next_create(&mut self) -> Option<(u64, i64)> {
        if self.asked.len() >= WATCH_CREATES {
            return None;
        }
        let slot = self.waiting.pop_first()?;
        self.last_id += 1;
        self.asked.push_back(self.last_id);
        self.by_id.insert(self.last_id, slot);
        Some((slot, self.last_id))
    }

    /// A create was answered: the id it asked for.
    pub(super) fn answered(&mut self) -> Option<i64> {
        self.asked.pop_front()
    }

    /// The slot of an id, while it is open.
    pub(super) fn slot(&self, id: i64) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    /// etcd created it.
    pub(super) fn is_live(&mut self, slot: u64) {
        self.unlive.remove(&slot);
        self.resuming.remove(&slot);
    }

    /// The slot is closed.
    pub(super) fn remove(&mut self, slot: u64) {
        self.waiting.remove(&slot);
        self.is_live(slot);
    }

    /// What comes under this id is nobody's from here on. Whether it was somebody's.
    pub(super) fn forget(&mut self, id: i64) -> bool {
        self.by_id.remove(&id).is_some()
    }

    /// How many slots are not live.
    pub(super) fn unlive(&self) -> usize {
        self.unlive.len()
    }

    /// The one of them that was opened first.
    pub(super) fn first_unlive(&self) -> Option<u64> {
        self.unlive.first().copied()
    }

    /// Whether a progress request may be sent. None is, until all that resume are live: an answer
    /// to one sent earlier may arrive behind their `created` and yet say nothing of them, while
    /// one for a watch from now on is never above the revision it begins at.
    pub(super) fn may_ask(&self) -> bool {
        self.resuming.is_empty()
    }
}
