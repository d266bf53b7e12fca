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
    /// The stream that the trunk requires: its generation, and why it is needed.
    requested: Cell<Option<(u64, ReconnectReason)>>,
    /// The generation and the sending side of the open stream.
    sending: RefCell<Option<(u64, SendStream<Bytes>)>>,
    /// A check that must finish before more responses are read.
    history_check: Cell<Option<HistoryCheck>>,
    /// Upstream watchers of the trunk that the worker's sum includes.
    counted_watchers: Cell<usize>,
    /// Whether reading is suspended because the hub cannot accept events.
    paused: Cell<bool>,
    changed: Notify,
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
            requested: Cell::new(None),
            sending: RefCell::new(None),
            history_check: Cell::new(None),
            counted_watchers: Cell::new(0),
            paused: Cell::new(false),
            changed: Notify::new(),
            process,
        }
    }

    /// Passes an input to the trunk and carries out the resulting actions. Its events wait in the
    /// inbox of this worker or are messages to other workers; the caller has to run or notify the
    /// hub.
    pub(super) fn with_trunk<T>(&self, outbox: &Outbox, input: impl FnOnce(&mut Trunk) -> T) -> T {
        let mut trunk = self.trunk.borrow_mut();
        let result = input(&mut trunk);
        let previous = self.counted_watchers.replace(trunk.watchers());
        outbox.update_watcher_count(previous, trunk.watchers());
        if trunk.watchers() == 0 {
            self.changed.notify_one();
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
                self.requested.set(Some((generation, reason)));
                self.changed.notify_one();
            }
            Action::Disconnect { generation } => self.drop_stream(generation),
            Action::Send {
                generation,
                message,
            } => {
                if let Some((open, stream)) = &mut *self.sending.borrow_mut()
                    && *open == generation
                {
                    let message = match self.process.namespace_policy() {
                        Some(namespace) => namespace.watch_request(&message),
                        None => message,
                    };
                    // An error means that the stream has ended. Its reader notices.
                    let _ = stream.send_data(message, false);
                }
            }
            Action::Deliver { subscriber, event } => outbox.send_event(subscriber, event),
            Action::BarrierAnswered { waiter, revision } => outbox.send_barrier(waiter, revision),
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

    fn drop_stream(&self, generation: u64) {
        if self.requested.get().is_some_and(|(g, _)| g == generation) {
            self.requested.set(None);
        }
        self.sending
            .borrow_mut()
            .take_if(|(open, _)| *open == generation);
        self.changed.notify_one();
    }

    /// Reports to the trunk that its stream is open. From here on the trunk sends on `stream`.
    pub(super) fn connected(
        &self,
        outbox: &Outbox,
        generation: u64,
        stream: SendStream<Bytes>,
        progress: bool,
    ) {
        *self.sending.borrow_mut() = Some((generation, stream));
        self.with_trunk(outbox, |trunk| {
            trunk.connected(generation, progress, Instant::now());
        });
    }

    /// Reports to the trunk that its stream has ended or could not be opened.
    pub(super) fn stream_lost(&self, outbox: &Outbox, generation: u64) {
        self.drop_stream(generation);
        self.with_trunk(outbox, |trunk| trunk.lost(generation));
    }

    /// Reports to the trunk that no endpoint can serve its stream.
    pub(super) fn stream_unavailable(&self, outbox: &Outbox, generation: u64, reason: Unavailable) {
        self.drop_stream(generation);
        self.with_trunk(outbox, |trunk| trunk.fail_feeds(reason));
    }

    /// Returns the stream that the trunk requires, and why it is needed.
    pub(super) fn requested(&self) -> Option<(u64, ReconnectReason)> {
        self.requested.get()
    }

    /// Returns whether the trunk still requires this stream.
    pub(super) fn is_requested(&self, generation: u64) -> bool {
        self.requested()
            .is_some_and(|(current, _)| current == generation)
    }

    /// Waits until the state of the link changes.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn request_history_check(&self, check: HistoryCheck) {
        self.history_check.set(Some(check));
        self.changed.notify_one();
    }

    /// Takes the history check that must finish before more responses are read.
    pub(super) fn take_history_check(&self) -> Option<HistoryCheck> {
        self.history_check.take()
    }

    /// Suspends or resumes reading of the stream.
    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.set(paused);
        self.changed.notify_one();
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
