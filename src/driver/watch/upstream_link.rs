//! A trunk and its upstream stream: carries out the actions of the trunk.
//!
//! Opening and reading the stream needs a task, [`drive`](super::upstream_stream::drive). The link
//! stores requests for that task and notifies it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;
use tokio::sync::Notify;

use crate::driver::etcd::stream_slot::StreamSlot;
use crate::driver::state::identity::Identity;
use crate::driver::state::process::ProcessState;
use crate::driver::watch::outbox::Outbox;
use crate::state_machine::watch::Unavailable;
use crate::state_machine::watch::trunk::{Action, ReconnectReason, Trunk};
use crate::wire::range::KeyRange;

/// One trunk, its upstream stream and the requests for its task.
pub(super) struct UpstreamLink {
    /// The identity that provides the tokens.
    pub(super) identity: Arc<Identity>,
    /// One range of the link, for linearizable reads that check the history of the store.
    pub(super) range: KeyRange,
    trunk: RefCell<Trunk>,
    /// The stream that the trunk requires. The task of the link waits for its changes.
    pub(super) slot: StreamSlot<ReconnectReason>,
    /// A check that must finish before more responses are read.
    history_check: Cell<Option<HistoryCheck>>,
    /// etcd has refused the token of the stream for a new watch, and no search has started yet.
    token_refused: Cell<bool>,
    /// Signals another refusal of the token to the search that runs.
    pub(super) token_refused_again: Notify,
    /// A search for a token runs.
    pub(super) searches_token: Cell<bool>,
    /// Upstream watchers of the trunk that the worker's sum includes.
    counted_watchers: Cell<usize>,
    /// Whether reading is suspended because the hub cannot accept events.
    paused: Cell<bool>,
    /// For the namespace: requests of the trunk have the keys of clients.
    process: Arc<ProcessState>,
}

/// A pending check of the store's history.
#[derive(Debug, Clone, Copy)]
pub(super) struct HistoryCheck {
    pub(super) generation: u64,
    /// The highest revision seen before.
    pub(super) previous_revision: i64,
}

impl UpstreamLink {
    pub(super) fn new(
        process: Arc<ProcessState>,
        identity: Arc<Identity>,
        range: KeyRange,
        trunk: Trunk,
    ) -> UpstreamLink {
        UpstreamLink {
            identity,
            range,
            trunk: RefCell::new(trunk),
            slot: StreamSlot::new(),
            history_check: Cell::new(None),
            token_refused: Cell::new(false),
            token_refused_again: Notify::new(),
            searches_token: Cell::new(false),
            counted_watchers: Cell::new(0),
            paused: Cell::new(false),
            process,
        }
    }

    /// Passes an input to the trunk and carries out the resulting actions. The outbox delivers its
    /// events to the hubs.
    pub(super) fn with_trunk<T>(&self, outbox: &Outbox, input: impl FnOnce(&mut Trunk) -> T) -> T {
        let mut trunk = self.trunk.borrow_mut();
        let result = input(&mut trunk);
        let previous = self.counted_watchers.replace(trunk.watchers());
        outbox.update_watcher_count(previous, trunk.watchers());
        if trunk.watchers() == 0 {
            self.slot.notify();
            // Revision 0 proves nothing: the hub repeats the request at the next link of the
            // identity.
            for waiter in trunk.take_barrier_waiters() {
                outbox.send_barrier(waiter, 0);
            }
        }
        while let Some(action) = trunk.next_action() {
            self.perform(outbox, action);
        }
        result
    }

    fn perform(&self, outbox: &Outbox, action: Action) {
        match action {
            Action::Connect { generation, reason } => {
                self.slot.request(Some((generation, reason)));
            }
            Action::Disconnect { generation } => self.slot.close(generation),
            Action::Send {
                generation,
                message,
            } => {
                if self.slot.is_open(generation) {
                    self.slot.send(match self.process.namespace_policy() {
                        Some(namespace) => namespace.watch_request(&message),
                        None => message,
                    });
                }
            }
            Action::Deliver { subscriber, event } => outbox.send_event(subscriber, event),
            Action::BarrierAnswered { waiter, revision } => outbox.send_barrier(waiter, revision),
            Action::FindToken => {
                self.token_refused.set(true);
                self.slot.notify();
            }
            Action::VerifyHistory {
                generation,
                highest,
                header: _,
            } => self.request_history_check(HistoryCheck {
                generation,
                previous_revision: highest,
            }),
        }
    }

    /// Reports to the trunk that its stream is open. From here on the trunk sends on `stream`.
    pub(super) fn connected(
        &self,
        outbox: &Outbox,
        generation: u64,
        stream: SendStream<Bytes>,
        progress: bool,
    ) {
        self.slot.set_open(generation, stream);
        self.with_trunk(outbox, |trunk| {
            trunk.connected(generation, progress, Instant::now());
        });
    }

    /// Reports to the trunk that its stream has ended or could not be opened.
    pub(super) fn stream_lost(&self, outbox: &Outbox, generation: u64) {
        self.slot.close(generation);
        self.with_trunk(outbox, |trunk| trunk.lost(generation));
    }

    /// Reports to the trunk that no endpoint can serve its stream.
    pub(super) fn stream_unavailable(&self, outbox: &Outbox, generation: u64, reason: Unavailable) {
        self.slot.close(generation);
        self.with_trunk(outbox, |trunk| trunk.fail_feeds(reason));
    }

    fn request_history_check(&self, check: HistoryCheck) {
        self.history_check.set(Some(check));
        self.slot.notify();
    }

    /// Takes the history check that must finish before more responses are read.
    pub(super) fn take_history_check(&self) -> Option<HistoryCheck> {
        self.history_check.take()
    }

    /// Returns once whether etcd has refused the token of the stream for a new watch.
    pub(super) fn take_token_refused(&self) -> bool {
        self.token_refused.take()
    }

    /// Suspends or resumes reading of the stream.
    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.set(paused);
        self.slot.notify();
    }

    /// Returns whether reading is suspended because the hub cannot accept events.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// Returns whether no feed is left, so that the task of the link ends.
    pub(super) fn is_over(&self) -> bool {
        self.trunk.borrow().watchers() == 0
    }

    /// Returns whether a progress request has no response yet.
    pub(super) fn awaits_progress(&self) -> bool {
        self.trunk.borrow().awaits_progress()
    }

    /// Returns when the trunk needs its next tick.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.trunk.borrow().wake_at()
    }
}
