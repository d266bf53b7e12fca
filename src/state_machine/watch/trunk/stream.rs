//! Open upstream stream: watch ids, which are never reused on it, and creates without a response.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::progress::Progress;
use crate::limits::WATCH_CREATES;

/// An open stream. Upstream watchers are named by slot, the number of their opening.
#[derive(Debug)]
pub(super) struct OpenStream {
    /// `None` if this endpoint's responses to progress requests are not sound (W8).
    pub(super) progress: Option<Progress>,
    /// Result of the comparison of its headers with earlier ones.
    pub(super) history: HistoryState,
    /// Slot by watch id. Ids of closed upstream watchers are absent.
    by_id: HashMap<i64, u64>,
    /// Ids of the unanswered creates, in the order of the requests.
    unanswered: VecDeque<i64>,
    /// Slots without a create on this stream.
    waiting: BTreeSet<u64>,
    /// Slots that are not live: their create was not sent or not answered.
    not_live: BTreeSet<u64>,
    /// Slots that are not live because etcd refused the token, and that no client watcher depends
    /// on. Barriers do not wait for them.
    set_aside: BTreeSet<u64>,
    /// The slots of `not_live` that resume from a start in the past.
    resuming: BTreeSet<u64>,
    /// The last id used. Ids start at 1, because etcd chooses an id for 0.
    last_id: i64,
}

/// Comparison of a stream's headers with the history seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryState {
    /// Same cluster, and no lower revision.
    Consistent,
    /// The store was behind a revision seen before.
    Behind,
    /// The cluster id differs.
    OtherCluster,
}

impl OpenStream {
    pub(super) fn new(progress: Option<Progress>) -> OpenStream {
        OpenStream {
            progress,
            history: HistoryState::Consistent,
            by_id: HashMap::new(),
            unanswered: VecDeque::new(),
            waiting: BTreeSet::new(),
            not_live: BTreeSet::new(),
            set_aside: BTreeSet::new(),
            resuming: BTreeSet::new(),
            last_id: 0,
        }
    }

    /// Adds a slot, so that its create is sent. `resumes`: its start is in the past.
    pub(super) fn add_waiting(&mut self, slot: u64, resumes: bool) {
        self.waiting.insert(slot);
        self.not_live.insert(slot);
        if resumes {
            self.resuming.insert(slot);
        }
    }

    /// Returns the next slot for a create, with its new id. `None` if too many are unanswered.
    pub(super) fn next_create(&mut self) -> Option<(u64, i64)> {
        if self.unanswered.len() >= WATCH_CREATES {
            return None;
        }
        let slot = self.waiting.pop_first()?;
        self.last_id += 1;
        self.unanswered.push_back(self.last_id);
        self.by_id.insert(self.last_id, slot);
        Some((slot, self.last_id))
    }

    /// Removes the first unanswered create and returns its id.
    pub(super) fn create_answered(&mut self) -> Option<i64> {
        self.unanswered.pop_front()
    }

    /// Returns the slot of a watch id, while it is open.
    pub(super) fn slot(&self, id: i64) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    /// Marks a slot as live, after etcd created its watch.
    pub(super) fn mark_live(&mut self, slot: u64) {
        self.not_live.remove(&slot);
        self.set_aside.remove(&slot);
        self.resuming.remove(&slot);
    }

    /// Sets aside a slot for which etcd refused the token, until the stream is replaced.
    pub(super) fn set_aside(&mut self, slot: u64) {
        self.mark_live(slot);
        self.set_aside.insert(slot);
    }

    /// Removes a closed slot.
    pub(super) fn remove(&mut self, slot: u64) {
        self.waiting.remove(&slot);
        self.mark_live(slot);
    }

    /// Removes a watch id, so that its responses are ignored. Returns whether it had a slot.
    pub(super) fn remove_id(&mut self, id: i64) -> bool {
        self.by_id.remove(&id).is_some()
    }

    /// Returns the number of slots that are not live.
    pub(super) fn not_live(&self) -> usize {
        self.not_live.len() + self.set_aside.len()
    }

    /// Returns the slot that was opened first of those that are not live and not set aside.
    pub(super) fn first_not_live(&self) -> Option<u64> {
        self.not_live.first().copied()
    }

    /// Returns whether a progress request may be sent: only when all resuming slots are live. The
    /// response to an earlier request could arrive after their `created` without including their
    /// old events. For a watch from the current revision, such a response is never above the
    /// revision at which the watch starts.
    pub(super) fn may_request_progress(&self) -> bool {
        self.resuming.is_empty()
    }
}
