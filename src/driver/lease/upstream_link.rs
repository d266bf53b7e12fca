//! The upstream link of an identity: its lease hub and the upstream streams that the hub requires.
//!
//! The hub driver stores requests here; [`supervise`](super::supervisor::supervise) carries them
//! out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::driver::etcd::stream_slot::StreamSlot;
use crate::driver::state::identity::Identity;
use crate::state_machine::lease::{Hub, ReconnectReason};

/// An upstream stream that the hub requires.
pub(super) type Slot = StreamSlot<ReconnectReason>;

/// One lease hub, its upstream streams and the requests for its task.
pub(super) struct UpstreamLink {
    /// The identity that provides the tokens.
    pub(super) identity: Arc<Identity>,
    pub(super) hub: RefCell<Hub>,
    /// By the number that the hub assigns to the slot.
    pub(super) slots: RefCell<HashMap<u64, Rc<Slot>>>,
    /// Slots that have no task yet, with their numbers.
    new_slots: RefCell<Vec<(u64, Rc<Slot>)>>,
    /// Leases that need a TTL check.
    ttl_checks: RefCell<Vec<i64>>,
    /// Time of the hub's next tick.
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
    pub(super) fn slot(&self, id: u64) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(id).or_insert_with(|| {
            let slot = Rc::new(Slot::new());
            self.new_slots.borrow_mut().push((id, slot.clone()));
            self.changed.notify_one();
            slot
        });
        slot.clone()
    }

    /// Takes the slots that have no task yet.
    pub(super) fn take_new_slots(&self) -> Vec<(u64, Rc<Slot>)> {
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
        self.hub.borrow().is_finished()
    }
}
