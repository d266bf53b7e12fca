//! Messages that are held until they are complete, counted on their worker where they are large (S1).

use std::cell::Cell;
use std::rc::Rc;

/// Bytes of a message that is not complete.
#[derive(Debug)]
pub(super) struct Large {
    all: Rc<Cell<usize>>,
    bytes: usize,
}

impl Large {
    /// None yet; `all` is the worker's count.
    pub(super) fn new(all: &Rc<Cell<usize>>) -> Large {
        Large {
            all: all.clone(),
            bytes: 0,
        }
    }

    /// So many now.
    pub(super) fn set(&mut self, bytes: usize) {
        self.all.set(self.all.get() + bytes - self.bytes);
        self.bytes = bytes;
    }

    /// Of the whole worker.
    pub(super) fn all(&self) -> usize {
        self.all.get()
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.set(0);
    }
}
