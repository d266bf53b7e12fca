//! One s-watcher: its frontier (W3), and whole revisions out of parts.
//!
//! The frontier F moves by the last event of a complete response or of a whole revision in a part,
//! by `created` for a watch from now on, and by progress; never by the header of events. What is
//! ≤ F is dropped: newer etcd reads the revision of `created` after it registered the watch, so
//! events up to it may trail behind, and a lagging endpoint may send old events for a start ahead
//! of it.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::action::{Action, Sub};
use crate::state_machine::watch::{Batch, FeedEvent};
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::watch::Event;

/// An s-watcher and those who are told.
#[derive(Debug)]
pub(super) struct Watcher {
    /// What it watches.
    pub(super) range: KeyRange,
    /// With the former values.
    pub(super) prev_kv: bool,
    /// Its feeds, at least one.
    pub(super) subs: Vec<Sub>,
    /// Its feeds have been told that they are Live.
    pub(super) told: bool,
    /// Where it stands on the stream that is up, if one is.
    pub(super) place: Place,
    /// F; `None` until etcd has said what "from now on" means.
    frontier: Option<i64>,
    /// F is a revision that etcd has had, not only the one before the start that was asked for.
    reached: bool,
    /// History up to here is known to be gone, itself excepted.
    compacted: i64,
    /// All of a revision above F that a part has brought, while its rest may be in the next.
    held: Vec<Event>,
    /// The last part was not the last.
    in_parts: bool,
}

/// Where an s-watcher stands on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not asked for yet.
    Waiting,
    /// Its create was sent under this id.
    Asked(i64),
    /// etcd has created it.
    Live {
        /// Its id.
        id: i64,
        /// How many progress requests had been sent on the stream by then: their answers do not
        /// speak for it.
        since: u64,
    },
}

/// etcd spoke against its own protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonsense;

impl Watcher {
    /// One from now on, or from a revision on.
    pub(super) fn new(range: KeyRange, prev_kv: bool, start: Option<i64>, sub: Sub) -> Watcher {
        Watcher {
            range,
            prev_kv,
            subs: vec![sub],
            told: false,
            place: Place::Waiting,
            frontier: start.map(|start| start.saturating_sub(1)),
            reached: false,
            compacted: 0,
            held: Vec::new(),
            in_parts: false,
        }
    }

    /// Tells all its feeds.
    pub(super) fn tell(&self, actions: &mut VecDeque<Action>, told: &FeedEvent) {
        actions.extend(self.subs.iter().map(|sub| Action::Tell {
            sub: *sub,
            told: told.clone(),
        }));
    }

    /// F, once there is one.
    pub(super) fn frontier(&self) -> Option<i64> {
        self.frontier
    }

    /// What to ask etcd for, 0 for "from now on". Where F was reached it is F itself, whose events
    /// are dropped when they come again: when F is the last revision, a watch from F + 1 counts as
    /// one from the future, and etcd answers no progress request on its stream before the next
    /// write.
    pub(super) fn start_revision(&self) -> i64 {
        match self.frontier {
            None => 0,
            Some(frontier) if self.reached && frontier >= self.compacted => frontier,
            Some(frontier) => frontier.saturating_add(1),
        }
    }

    /// History is gone up to a revision, itself excepted. Whether nothing above F is.
    pub(super) fn survives(&mut self, compacted: i64) -> bool {
        self.compacted = compacted;
        let next = self.frontier.map_or(0, |last| last.saturating_add(1));
        next >= compacted
    }

    /// etcd has created it, at this revision of its store. F, which it now has.
    pub(super) fn created(&mut self, revision: i64) -> i64 {
        self.reached |= self.frontier.is_none();
        *self.frontier.get_or_insert(revision)
    }

    /// Events have come; `fragment` when more of the same response follows. The whole revisions
    /// above F, if there are any.
    pub(super) fn events(
        &mut self,
        header: Header,
        events: Vec<Event>,
        fragment: bool,
    ) -> Result<Option<Arc<Batch>>, Nonsense> {
        let frontier = self.frontier.ok_or(Nonsense)?;
        let new = events.into_iter().filter(|event| event.revision > frontier);
        let mut whole = mem::take(&mut self.held);
        let before = whole.last().map_or(0, |last| last.revision);
        whole.extend(new);
        // Within a response the order was checked when it was read.
        if whole.iter().any(|event| event.revision < before) {
            return Err(Nonsense);
        }
        self.in_parts = fragment;
        if fragment && let Some(last) = whole.last().map(|last| last.revision) {
            let cut = whole.partition_point(|event| event.revision < last);
            self.held = whole.split_off(cut);
        }
        let Some(through) = whole.last().map(|last| last.revision) else {
            return Ok(None);
        };
        self.frontier = Some(through);
        self.reached = true;
        let each = |event: &Event| size_of::<Event>() + event.encoded.len();
        Ok(Some(Arc::new(Batch {
            header,
            bytes: whole.iter().map(each).sum(),
            events: whole,
            through,
        })))
    }

    /// etcd says that all up to this revision was sent. Whether F moved. Amid the parts of a
    /// response it says nothing of it, so F stays.
    pub(super) fn progress(&mut self, revision: i64) -> bool {
        let Some(frontier) = self.frontier else {
            return false;
        };
        let moves = revision > frontier && !self.in_parts;
        if moves {
            self.frontier = Some(revision);
            self.reached = true;
        }
        moves
    }

    /// Whether more parts of a response are to come.
    pub(super) fn in_parts(&self) -> bool {
        self.in_parts
    }

    /// The stream is gone, and with it what was not whole.
    pub(super) fn lost(&mut self) {
        self.place = Place::Waiting;
        self.held = Vec::new();
        self.in_parts = false;
    }
}
