//! Messages that are held until they are complete, counted on their worker where they are large (S1).

use std::cell::Cell;
use std::rc::Rc;

use crate::driver::state::connection::ClientConnection;
use crate::limits;

/// Bytes of a message that is not complete.
#[derive(Debug)]
pub(in crate::driver) struct MessageBudget {
    all: Rc<Cell<usize>>,
    bytes: usize,
}

impl MessageBudget {
    /// None yet; `all` is the worker's count.
    pub(in crate::driver) fn new(all: &Rc<Cell<usize>>) -> MessageBudget {
        MessageBudget {
            all: all.clone(),
            bytes: 0,
        }
    }

    /// So many now.
    pub(in crate::driver) fn set(&mut self, bytes: usize) {
        self.all.set(self.all.get() + bytes - self.bytes);
        self.bytes = bytes;
    }

    /// Of the whole worker.
    pub(in crate::driver) fn all(&self) -> usize {
        self.all.get()
    }
}

impl Drop for MessageBudget {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes of a request that is not complete, of one connection. As many as without the translation would
/// wait in its window are its own; only what it holds beyond them counts on the worker, so that who
/// finishes nothing keeps out nobody who does.
#[derive(Debug)]
pub(in crate::driver) struct ConnectionBudget {
    peer: Rc<ClientConnection>,
    /// The worker's count.
    all: Rc<Cell<usize>>,
    bytes: usize,
}

impl ConnectionBudget {
    /// None yet.
    pub(in crate::driver) fn new(
        peer: &Rc<ClientConnection>,
        all: &Rc<Cell<usize>>,
    ) -> ConnectionBudget {
        ConnectionBudget {
            peer: peer.clone(),
            all: all.clone(),
            bytes: 0,
        }
    }

    /// So many now.
    pub(in crate::driver) fn set(&mut self, bytes: usize) {
        let before = self.beyond();
        let others = self.peer.unfinished.get() - self.bytes;
        self.peer.unfinished.set(others + bytes);
        self.bytes = bytes;
        self.all.set(self.all.get() + self.beyond() - before);
    }

    /// The connection has more than its own, and the worker more than it takes.
    pub(in crate::driver) fn is_too_much(&self) -> bool {
        self.beyond() > 0 && self.all.get() > limits::LARGE_REQUEST_BYTES
    }

    fn beyond(&self) -> usize {
        let own = limits::CONNECTION_WINDOW as usize;
        self.peer.unfinished.get().saturating_sub(own)
    }
}

impl Drop for ConnectionBudget {
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
        let peers = [
            Rc::new(ClientConnection::new(1, None)),
            Rc::new(ClientConnection::new(2, None)),
        ];
        let mut hoard = ConnectionBudget::new(&peers[0], &all);
        let mut more = ConnectionBudget::new(&peers[0], &all);
        let mut other = ConnectionBudget::new(&peers[1], &all);
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
