//! Upstream watcher: its frontier (W3), and whole revisions assembled from fragments.
//!
//! The frontier F advances with the last event of a complete response, with a whole revision in a
//! fragment, with `created` for a watch from the current revision, and with progress. F never
//! advances with the header of events. Events with a revision ≤ F are dropped, for two reasons:
//!
//! - Newer etcd reads the revision of `created` after it registered the watch, so events up to that
//!   revision may arrive later.
//! - An endpoint that is behind may send old events for a start that it has not reached.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::action::{Action, Subscriber};
use crate::state_machine::watch::{Batch, FeedEvent};
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::watch::Event;

/// An upstream watcher and its feeds.
#[derive(Debug)]
pub(super) struct Watcher {
    /// The watched range.
    pub(super) range: KeyRange,
    /// Events contain the previous values.
    pub(super) prev_kv: bool,
    /// Receivers of its feeds, at least one.
    pub(super) subscribers: Vec<Subscriber>,
    /// [`FeedEvent::Live`] was delivered to its feeds.
    pub(super) live_sent: bool,
    /// State on the open stream, if there is one.
    pub(super) create_state: CreateState,
    /// The reason with which etcd refused the last token for it. `None` once it is live, and after
    /// the loss of a stream.
    pub(super) token_refusal: Option<String>,
    /// F. `None` until etcd has reported the current revision.
    frontier: Option<i64>,
    /// F is a revision that etcd has reached, not only the one before the requested start.
    reached: bool,
    /// The compact revision of the last cancel: revisions below it are compacted.
    compacted: i64,
    /// Events of the last revision of a fragment, which may continue in the next fragment.
    incomplete: Vec<Event>,
    /// More fragments of the current response follow.
    in_parts: bool,
}

/// State of an upstream watcher on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CreateState {
    /// Its create was not sent.
    Waiting,
    /// Its create was sent with this id.
    Requested(i64),
    /// etcd refused the token of the stream for its create.
    TokenRefused,
    /// etcd has created the watch.
    Live {
        /// Watch id on the stream.
        id: i64,
        /// Number of progress requests sent before etcd created the watch. Their responses do not
        /// include it.
        since: u64,
    },
}

/// etcd violated the watch protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProtocolError;

impl Watcher {
    /// Creates an upstream watcher from the current revision, or from `start`.
    pub(super) fn new(
        range: KeyRange,
        prev_kv: bool,
        start: Option<i64>,
        subscriber: Subscriber,
    ) -> Watcher {
        Watcher {
            range,
            prev_kv,
            subscribers: vec![subscriber],
            live_sent: false,
            create_state: CreateState::Waiting,
            token_refusal: None,
            frontier: start.map(|start| start.saturating_sub(1)),
            reached: false,
            compacted: 0,
            incomplete: Vec::new(),
            in_parts: false,
        }
    }

    /// Returns whether etcd refused the token for it before it was live for the first time. No
    /// client watcher depends on it.
    pub(super) fn is_set_aside(&self) -> bool {
        self.create_state == CreateState::TokenRefused && !self.live_sent
    }

    /// Delivers an event to all its feeds.
    pub(super) fn deliver(&self, actions: &mut VecDeque<Action>, event: &FeedEvent) {
        actions.extend(self.subscribers.iter().map(|subscriber| Action::Deliver {
            subscriber: *subscriber,
            event: event.clone(),
        }));
    }

    /// Returns F, once it is known.
    pub(super) fn frontier(&self) -> Option<i64> {
        self.frontier
    }

    /// Returns the start revision to request, 0 for the current revision.
    ///
    /// If F was reached, the start is F itself, and its repeated events are dropped. The reason: if
    /// F is the current revision, etcd treats a watch from F + 1 as one from the future. etcd then
    /// answers no progress request on its stream before the next write.
    pub(super) fn start_revision(&self) -> i64 {
        match self.frontier {
            None => 0,
            Some(frontier) if self.reached && frontier >= self.compacted => frontier,
            Some(frontier) => frontier.saturating_add(1),
        }
    }

    /// Records a compaction of the revisions below `compacted`. Returns whether none of them is
    /// above F.
    pub(super) fn survives(&mut self, compacted: i64) -> bool {
        self.compacted = compacted;
        let next = self.frontier.map_or(0, |last| last.saturating_add(1));
        next >= compacted
    }

    /// Records that etcd created the watch at this revision of the store. Returns F.
    pub(super) fn created(&mut self, revision: i64) -> i64 {
        self.reached |= self.frontier.is_none();
        *self.frontier.get_or_insert(revision)
    }

    /// Records received events, where `fragment` announces more of the same response. Returns the
    /// whole revisions above F, if there are any.
    ///
    /// # Errors
    ///
    /// Returns [`ProtocolError`] before `created`, or if the revisions of fragments decrease.
    pub(super) fn events(
        &mut self,
        header: Header,
        events: Vec<Event>,
        fragment: bool,
    ) -> Result<Option<Arc<Batch>>, ProtocolError> {
        let frontier = self.frontier.ok_or(ProtocolError)?;
        let new = events.into_iter().filter(|event| event.revision > frontier);
        let mut whole = mem::take(&mut self.incomplete);
        let before = whole.last().map_or(0, |last| last.revision);
        whole.extend(new);
        // The order within a response was checked when it was decoded.
        if whole.iter().any(|event| event.revision < before) {
            return Err(ProtocolError);
        }
        self.in_parts = fragment;
        if fragment && let Some(last) = whole.last().map(|last| last.revision) {
            let end = whole.partition_point(|event| event.revision < last);
            self.incomplete = whole.split_off(end);
        }
        let Some(frontier) = whole.last().map(|last| last.revision) else {
            return Ok(None);
        };
        self.frontier = Some(frontier);
        self.reached = true;
        let each = |event: &Event| size_of::<Event>() + event.encoded.len();
        Ok(Some(Arc::new(Batch {
            header,
            bytes: whole.iter().map(each).sum(),
            events: whole,
            frontier,
        })))
    }

    /// Records that etcd sent everything up to this revision. Returns whether F advanced. Between
    /// the fragments of a response, progress does not include the remaining ones, so F does not
    /// advance.
    pub(super) fn progress(&mut self, revision: i64) -> bool {
        let Some(frontier) = self.frontier else {
            return false;
        };
        let advances = revision > frontier && !self.in_parts;
        if advances {
            self.frontier = Some(revision);
            self.reached = true;
        }
        advances
    }

    /// Returns whether more fragments of a response follow.
    pub(super) fn in_parts(&self) -> bool {
        self.in_parts
    }

    /// Discards the state on the lost stream, with incomplete revisions.
    pub(super) fn stream_lost(&mut self) {
        self.create_state = CreateState::Waiting;
        self.incomplete = Vec::new();
        self.in_parts = false;
    }
}
