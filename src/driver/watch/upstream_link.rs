//! A trunk and its stream to etcd: what the trunk asks for is done, or noted for the task that
//! drives the line.

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

/// One trunk with all that belongs to it.
pub(super) struct UpstreamLink {
    /// Whose tokens it uses.
    pub(super) login: Arc<Identity>,
    /// One of its ranges, for asking etcd about history.
    pub(super) range: KeyRange,
    trunk: RefCell<Trunk>,
    /// The stream the trunk asked for and has not given up.
    wanted: Cell<Option<(u64, ReconnectReason)>>,
    /// The sending side of the stream that is up.
    up: RefCell<Option<(u64, SendStream<Bytes>)>>,
    /// History is to be asked about before more is read.
    verify: Cell<Option<Verify>>,
    /// Its s-watchers as the worker has counted them.
    counted: Cell<usize>,
    /// Nobody can take what it would tell.
    paused: Cell<bool>,
    changed: Notify,
    /// For the namespace: what the trunk asks for has keys as clients have them.
    shared: Arc<ProcessState>,
}

/// What to ask about history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verify {
    pub(super) generation: u64,
    /// What the store had come to before.
    pub(super) highest: i64,
}

impl UpstreamLink {
    pub(super) fn new(
        shared: Arc<ProcessState>,
        login: Arc<Identity>,
        range: KeyRange,
        trunk: Trunk,
    ) -> UpstreamLink {
        UpstreamLink {
            login,
            range,
            trunk: RefCell::new(trunk),
            wanted: Cell::new(None),
            up: RefCell::new(None),
            verify: Cell::new(None),
            counted: Cell::new(0),
            paused: Cell::new(false),
            changed: Notify::new(),
            shared,
        }
    }

    /// Gives the trunk an input and does what it asks for. What it tells hubs waits in the inbox of
    /// this worker, or is in the mail.
    pub(super) fn with<T>(&self, out: &Outbox, input: impl FnOnce(&mut Trunk) -> T) -> T {
        let mut trunk = self.trunk.borrow_mut();
        let result = input(&mut trunk);
        let before = self.counted.replace(trunk.watchers());
        out.count_watchers(before, trunk.watchers());
        if trunk.watchers() == 0 {
            self.changed.notify_one();
            // Who waits has to ask the line that comes after this one.
            for token in trunk.abandon() {
                out.synced(token, 0);
            }
        }
        while let Some(action) = trunk.next_action() {
            self.perform(out, action);
        }
        result
    }

    fn perform(&self, out: &Outbox, action: Action) {
        match action {
            Action::Connect {
                generation,
                because,
            } => {
                self.wanted.set(Some((generation, because)));
                self.changed.notify_one();
            }
            Action::Disconnect { generation } => self.drop_stream(generation),
            Action::Send {
                generation,
                message,
            } => {
                if let Some((up, stream)) = &mut *self.up.borrow_mut()
                    && *up == generation
                {
                    let message = match self.shared.gate() {
                        Some(gate) => gate.watch_request(&message),
                        None => message,
                    };
                    // An error means that the stream is gone, which its reader finds out.
                    let _ = stream.send_data(message, false);
                }
            }
            Action::Tell { sub, told } => out.tell(sub, told),
            Action::Synced { token, revision } => out.synced(token, revision),
            Action::Verify {
                generation,
                highest,
                header: _,
            } => self.verify(Verify {
                generation,
                highest,
            }),
        }
    }

    fn drop_stream(&self, generation: u64) {
        if self.wanted.get().is_some_and(|(g, _)| g == generation) {
            self.wanted.set(None);
        }
        self.up.borrow_mut().take_if(|(up, _)| *up == generation);
        self.changed.notify_one();
    }

    /// The stream is up: the trunk sends on it from here on.
    pub(super) fn connected(
        &self,
        out: &Outbox,
        generation: u64,
        stream: SendStream<Bytes>,
        progress: bool,
    ) {
        *self.up.borrow_mut() = Some((generation, stream));
        self.with(out, |trunk| {
            trunk.connected(generation, progress, Instant::now());
        });
    }

    /// The stream is down, or could not be had.
    pub(super) fn lost(&self, out: &Outbox, generation: u64) {
        self.drop_stream(generation);
        self.with(out, |trunk| trunk.lost(generation));
    }

    /// No stream can be had.
    pub(super) fn give_up(&self, out: &Outbox, generation: u64, why: Unavailable) {
        self.drop_stream(generation);
        self.with(out, |trunk| trunk.give_up(why));
    }

    /// The stream the trunk wants, and why.
    pub(super) fn wanted(&self) -> Option<(u64, ReconnectReason)> {
        self.wanted.get()
    }

    /// Whether the trunk still wants this stream.
    pub(super) fn wants(&self, generation: u64) -> bool {
        self.wanted()
            .is_some_and(|(wanted, _)| wanted == generation)
    }

    /// Returns when something here has changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn verify(&self, verify: Verify) {
        self.verify.set(Some(verify));
        self.changed.notify_one();
    }

    /// What is to be asked about history before more is read.
    pub(super) fn take_verify(&self) -> Option<Verify> {
        self.verify.take()
    }

    /// Stops or begins to read the stream.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.set(paused);
        self.changed.notify_one();
    }

    /// Whether nobody can take what it would tell.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// Whether nobody listens any more: its task ends.
    pub(super) fn is_over(&self) -> bool {
        self.trunk.borrow().watchers() == 0
    }

    /// Whether etcd was asked how far the stream is, and has not said so.
    pub(super) fn awaits_progress(&self) -> bool {
        self.trunk.borrow().awaits_progress()
    }

    /// When the trunk wants to be told the time.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.trunk.borrow().wake_at()
    }
}
