//! The word that goes to every connection and open stream when the process is to end (S2).

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// One worker's copy of the word. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Drain(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: Cell<bool>,
    notify: Notify,
}

impl Drain {
    /// Says the word; once is enough.
    pub fn begin(&self) {
        self.0.begun.set(true);
        self.0.notify.notify_waiters();
    }

    /// Whether it was said.
    pub fn has_begun(&self) -> bool {
        self.0.begun.get()
    }

    /// Returns when it is said, at once if it was.
    pub async fn begun(&self) {
        let notified = self.0.notify.notified();
        if !self.has_begun() {
            notified.await;
        }
    }
}
