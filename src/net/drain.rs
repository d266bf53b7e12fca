//! Signal that the process drains: every connection and open stream of a worker ends (S2).

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// The drain signal of one worker. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Drain(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: Cell<bool>,
    notify: Notify,
}

impl Drain {
    /// Starts the drain. Further calls have no effect.
    pub fn begin(&self) {
        self.0.begun.set(true);
        self.0.notify.notify_waiters();
    }

    /// Reports whether the drain has started.
    pub fn has_begun(&self) -> bool {
        self.0.begun.get()
    }

    /// Returns when the drain starts, at once if it has started.
    pub async fn begun(&self) {
        let notified = self.0.notify.notified();
        if !self.has_begun() {
            notified.await;
        }
    }
}
