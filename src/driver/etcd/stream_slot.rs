//! Slot of an upstream stream: the stream that a state machine requires, and the sending side of the
//! stream that is open.
//!
//! A state machine replaces its stream when the endpoint fails, the token is refused or the stream
//! stalls. Each stream has a generation, so that reports about a replaced stream have no effect.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use h2::SendStream;
use tokio::sync::Notify;

/// Requested and open upstream stream. `R` is the reason for the request.
pub(in crate::driver) struct StreamSlot<R> {
    /// Generation of the stream that is required, and why. `None` if no stream is required.
    requested: Cell<Option<(u64, R)>>,
    /// Generation and sending side of the open stream.
    open: RefCell<Option<(u64, SendStream<Bytes>)>>,
    changed: Notify,
}

impl<R: Copy> StreamSlot<R> {
    /// Creates a slot that requires no stream.
    pub(in crate::driver) fn new() -> StreamSlot<R> {
        StreamSlot {
            requested: Cell::new(None),
            open: RefCell::new(None),
            changed: Notify::new(),
        }
    }

    /// Requires another stream, or none any longer. Drops the open stream and notifies the task.
    pub(in crate::driver) fn request(&self, requested: Option<(u64, R)>) {
        self.requested.set(requested);
        self.open.borrow_mut().take();
        self.notify();
    }

    /// Drops the stream of this generation, whether it is requested or open, and notifies the task.
    pub(in crate::driver) fn close(&self, generation: u64) {
        if self.is_requested(generation) {
            self.requested.set(None);
        }
        self.open
            .borrow_mut()
            .take_if(|(open, _)| *open == generation);
        self.notify();
    }

    /// Returns the stream that is required, and why.
    pub(in crate::driver) fn requested(&self) -> Option<(u64, R)> {
        self.requested.get()
    }

    /// Returns whether the stream of this generation is still required.
    pub(in crate::driver) fn is_requested(&self, generation: u64) -> bool {
        self.requested()
            .is_some_and(|(requested, _)| requested == generation)
    }

    /// Wakes the task that waits in [`changed`](StreamSlot::changed).
    pub(in crate::driver) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits until the request changes, or until the next [`notify`](StreamSlot::notify).
    pub(in crate::driver) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sets the sending side of a stream that has been opened.
    pub(in crate::driver) fn set_open(&self, generation: u64, stream: SendStream<Bytes>) {
        *self.open.borrow_mut() = Some((generation, stream));
    }

    /// Returns whether the stream of this generation is open.
    pub(in crate::driver) fn is_open(&self, generation: u64) -> bool {
        let open = self.open.borrow();
        open.as_ref().is_some_and(|(open, _)| *open == generation)
    }

    /// Sends a message on the open stream. Without one, the message is dropped.
    pub(in crate::driver) fn send(&self, message: Bytes) {
        if let Some((_, stream)) = &mut *self.open.borrow_mut() {
            // An error means that the stream has ended. Its reader notices.
            let _ = stream.send_data(message, false);
        }
    }
}
