//! The upstream link of an identity: its lease hub and the upstream streams that the hub requires.
//!
//! The hub driver stores requests here; [`supervise`](super::supervisor::supervise) carries them
//! out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;
use tokio::sync::Notify;

use crate::driver::state::identity::Identity;
use crate::state_machine::lease::{Hub, ReconnectReason};

/// One lease hub, its upstream streams and the requests for its task.
pub(super) struct UpstreamLink {
    /// The identity that provides the tokens.
    pub(super) identity: Arc<Identity>,
    pub(super) hub: RefCell<Hub>,
    pub(super) slots: RefCell<HashMap<u64, Rc<StreamSlot>>>,
    /// Slots that have no task yet.
    new_slots: RefCell<Vec<Rc<StreamSlot>>>,
    /// Leases that need a TTL check.
    ttl_checks: RefCell<Vec<i64>>,
    /// When the hub needs its next tick.
    pub(super) wake_at: Cell<Option<Instant>>,
    /// Signals an earlier tick, a new slot, a new TTL check, or the end of the hub.
    pub(super) changed: Notify,
    /// Upstream streams of the hub that the worker's sum includes.
    pub(super) counted_streams: Cell<usize>,
}

impl UpstreamLink {
    pub(super) fn new(identity: Arc<Identity>) -> UpstreamLink {
        UpstreamLink {
            identity,
            hub: RefCell::new(Hub::new(Instant::now())),
            slots: RefCell::default(),
            new_slots: RefCell::default(),
            ttl_checks: RefCell::default(),
            wake_at: Cell::new(None),
            changed: Notify::new(),
            counted_streams: Cell::new(0),
        }
    }

    /// Returns the slot of this number. The supervisor starts the task of a new slot.
    pub(super) fn slot(&self, id: u64) -> Rc<StreamSlot> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(id).or_insert_with(|| {
            let slot = Rc::new(StreamSlot::new(id));
            self.new_slots.borrow_mut().push(slot.clone());
            self.changed.notify_one();
            slot
        });
        slot.clone()
    }

    /// Takes the slots that have no task yet.
    pub(super) fn take_new_slots(&self) -> Vec<Rc<StreamSlot>> {
        self.new_slots.take()
    }

    /// Requests a TTL check of a lease from the supervisor.
    pub(super) fn request_ttl_check(&self, lease: i64) {
        self.ttl_checks.borrow_mut().push(lease);
        self.changed.notify_one();
    }

    /// Takes the leases that need a TTL check.
    pub(super) fn take_ttl_checks(&self) -> Vec<i64> {
        self.ttl_checks.take()
    }

    /// Returns whether the hub is finished, so that the task of the link ends.
    pub(super) fn is_over(&self) -> bool {
        self.hub.borrow().is_over()
    }
}

/// One upstream stream that the hub requires, and its sending side while it is open.
pub(super) struct StreamSlot {
    pub(super) id: u64,
    /// The generation of the stream, and why it is needed. `None` when the slot is closed.
    requested: Cell<Option<(u64, ReconnectReason)>>,
    sending: RefCell<Option<SendStream<Bytes>>>,
    changed: Notify,
}

impl StreamSlot {
    pub(super) fn new(id: u64) -> StreamSlot {
        StreamSlot {
            id,
            requested: Cell::new(None),
            sending: RefCell::default(),
            changed: Notify::new(),
        }
    }

    /// Requires another stream, or none any longer. Drops the open stream.
    pub(super) fn request(&self, requested: Option<(u64, ReconnectReason)>) {
        self.requested.set(requested);
        self.sending.borrow_mut().take();
        self.changed.notify_one();
    }

    /// Returns the stream that the hub requires, and why it is needed.
    pub(super) fn requested(&self) -> Option<(u64, ReconnectReason)> {
        self.requested.get()
    }

    /// Returns whether the hub still requires this stream.
    pub(super) fn is_requested(&self, generation: u64) -> bool {
        self.requested()
            .is_some_and(|(current, _)| current == generation)
    }

    /// Waits until the hub requires another stream, or none.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sets the sending side of the open stream.
    pub(super) fn set_stream(&self, stream: SendStream<Bytes>) {
        *self.sending.borrow_mut() = Some(stream);
    }

    /// Sends on the open stream.
    pub(super) fn send(&self, message: Bytes) {
        if let Some(stream) = &mut *self.sending.borrow_mut() {
            // An error means that the stream has ended. Its reader notices.
            let _ = stream.send_data(message, false);
        }
    }
}
