//! Messages that are held until they are complete, counted on their worker where they are large (S1).

use std::cell::Cell;
use std::rc::Rc;

use crate::limits;
use crate::service::peer::Peer;

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

/// Bytes of a request that is not complete, of one connection. As many as without the translation would
/// wait in its window are its own; only what it holds beyond them counts on the worker, so that who
/// finishes nothing keeps out nobody who does.
#[derive(Debug)]
pub(super) struct Unfinished {
    peer: Rc<Peer>,
    /// The worker's count.
    all: Rc<Cell<usize>>,
    bytes: usize,
}

impl Unfinished {
    /// None yet.
    pub(super) fn new(peer: &Rc<Peer>, all: &Rc<Cell<usize>>) -> Unfinished {
        Unfinished {
            peer: peer.clone(),
            all: all.clone(),
            bytes: 0,
        }
    }

    /// So many now.
    pub(super) fn set(&mut self, bytes: usize) {
        let before = self.beyond();
        let others = self.peer.unfinished.get() - self.bytes;
        self.peer.unfinished.set(others + bytes);
        self.bytes = bytes;
        self.all.set(self.all.get() + self.beyond() - before);
    }

    /// The connection has more than its own, and the worker more than it takes.
    pub(super) fn is_too_much(&self) -> bool {
        self.beyond() > 0 && self.all.get() > limits::LARGE_REQUEST_BYTES
    }

    fn beyond(&self) -> usize {
        let own = limits::CONNECTION_WINDOW as usize;
        self.peer.unfinished.get().saturating_sub(own)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_holds_more_than_its_own_is_refused() {
        let all = Rc::default();
        let peers = [Rc::new(Peer::new(1, None)), Rc::new(Peer::new(2, None))];
        let mut hoard = Unfinished::new(&peers[0], &all);
        let mut more = Unfinished::new(&peers[0], &all);
        let mut other = Unfinished::new(&peers[1], &all);
        hoard.set(limits::LARGE_REQUEST_BYTES);
        more.set(limits::CONNECTION_WINDOW as usize);
        assert!(!hoard.is_too_much() && !more.is_too_much());
        more.set(limits::CONNECTION_WINDOW as usize + 1);
        assert!(hoard.is_too_much() && more.is_too_much());
        other.set(limits::CONNECTION_WINDOW as usize);
        assert!(!other.is_too_much());
        drop(hoard);
        assert_eq!(all.get(), 1);
        drop((more, other));
        assert_eq!((all.get(), peers[0].unfinished.get()), (0, 0));
    }
}
