//! The line of an identity: its hub and the lanes that the hub asked for.

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

/// See the module.
pub(super) struct UpstreamLink {
    /// Whose tokens it uses.
    pub(super) login: Arc<Identity>,
    pub(super) hub: RefCell<Hub>,
    pub(super) lanes: RefCell<HashMap<u64, Rc<StreamSlot>>>,
    /// Those that nobody drives yet.
    fresh: RefCell<Vec<Rc<StreamSlot>>>,
    /// Leases to be asked about.
    exams: RefCell<Vec<i64>>,
    /// When the hub wants to be told the time.
    pub(super) wake_at: Cell<Option<Instant>>,
    /// That is earlier than it was, or there is something to begin, or the hub is over.
    pub(super) rearm: Notify,
    /// Its streams to etcd as the worker has counted them.
    pub(super) counted: Cell<usize>,
}

impl UpstreamLink {
    pub(super) fn new(login: Arc<Identity>) -> UpstreamLink {
        UpstreamLink {
            login,
            hub: RefCell::new(Hub::new(Instant::now())),
            lanes: RefCell::default(),
            fresh: RefCell::default(),
            exams: RefCell::default(),
            wake_at: Cell::new(None),
            rearm: Notify::new(),
            counted: Cell::new(0),
        }
    }

    /// The lane of this name; the keeper sees to it that a new one is driven.
    pub(super) fn lane(&self, id: u64) -> Rc<StreamSlot> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.entry(id).or_insert_with(|| {
            let lane = Rc::new(StreamSlot::new(id));
            self.fresh.borrow_mut().push(lane.clone());
            self.rearm.notify_one();
            lane
        });
        lane.clone()
    }

    /// Lanes that nobody drives yet.
    pub(super) fn take_fresh(&self) -> Vec<Rc<StreamSlot>> {
        self.fresh.take()
    }

    /// etcd is to be asked about a lease; the keeper sees to it.
    pub(super) fn examine(&self, lease: i64) {
        self.exams.borrow_mut().push(lease);
        self.rearm.notify_one();
    }

    /// Leases to be asked about.
    pub(super) fn take_exams(&self) -> Vec<i64> {
        self.exams.take()
    }

    /// Nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.hub.borrow().is_over()
    }
}

/// One lane: the stream to etcd that the hub wants, and its sending side while it is up.
pub(super) struct StreamSlot {
    pub(super) id: u64,
    /// The generation, and what the one before ended of; `None` when the lane is over.
    wanted: Cell<Option<(u64, ReconnectReason)>>,
    up: RefCell<Option<SendStream<Bytes>>>,
    changed: Notify,
}

impl StreamSlot {
    pub(super) fn new(id: u64) -> StreamSlot {
        StreamSlot {
            id,
            wanted: Cell::new(None),
            up: RefCell::default(),
            changed: Notify::new(),
        }
    }

    /// The hub wants this stream, or none any more. What was up is dropped.
    pub(super) fn want(&self, wanted: Option<(u64, ReconnectReason)>) {
        self.wanted.set(wanted);
        self.up.borrow_mut().take();
        self.changed.notify_one();
    }

    /// What the hub wants.
    pub(super) fn wanted(&self) -> Option<(u64, ReconnectReason)> {
        self.wanted.get()
    }

    /// Whether it still wants this stream.
    pub(super) fn wants(&self, generation: u64) -> bool {
        self.wanted()
            .is_some_and(|(wanted, _)| wanted == generation)
    }

    /// Returns when it wants something else.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The stream is open.
    pub(super) fn set_up(&self, stream: SendStream<Bytes>) {
        *self.up.borrow_mut() = Some(stream);
    }

    /// Sends on the stream that is up.
    pub(super) fn send(&self, message: Bytes) {
        if let Some(stream) = &mut *self.up.borrow_mut() {
            // An error means that the stream is gone, which its reader finds out.
            let _ = stream.send_data(message, false);
        }
    }
}
