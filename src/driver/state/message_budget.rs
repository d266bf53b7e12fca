//! Budgets for messages that are buffered until they are complete (S1). Large ones count on their
//! worker.

use std::cell::Cell;
use std::rc::Rc;

use crate::driver::state::connection::ClientConnection;
use crate::limits;

/// Bytes of an incomplete message.
#[derive(Debug)]
pub(in crate::driver) struct MessageBudget {
    worker_total: Rc<Cell<usize>>,
    bytes: usize,
}

impl MessageBudget {
    /// Creates an empty budget; `worker_total` is the worker's count.
    pub(in crate::driver) fn new(worker_total: &Rc<Cell<usize>>) -> MessageBudget {
        MessageBudget {
            worker_total: worker_total.clone(),
            bytes: 0,
        }
    }

    /// Sets the number of bytes.
    pub(in crate::driver) fn set(&mut self, bytes: usize) {
        self.worker_total
            .set(self.worker_total.get() + bytes - self.bytes);
        self.bytes = bytes;
    }

    /// Returns the total of the worker, in bytes.
    pub(in crate::driver) fn worker_total(&self) -> usize {
        self.worker_total.get()
    }
}

impl Drop for MessageBudget {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes of an incomplete request, counted per connection.
///
/// A connection may buffer as many bytes as would wait in its window without the translation. Only
/// the excess counts on the worker. A client that finishes no message therefore cannot block other
/// clients.
#[derive(Debug)]
pub(in crate::driver) struct ConnectionBudget {
    connection: Rc<ClientConnection>,
    /// Excess bytes of all connections of the worker.
    worker_total: Rc<Cell<usize>>,
    bytes: usize,
}

impl ConnectionBudget {
    /// Creates an empty budget of a connection.
    pub(in crate::driver) fn new(
        connection: &Rc<ClientConnection>,
        worker_total: &Rc<Cell<usize>>,
    ) -> ConnectionBudget {
        ConnectionBudget {
            connection: connection.clone(),
            worker_total: worker_total.clone(),
            bytes: 0,
        }
    }

    /// Sets the number of bytes.
    pub(in crate::driver) fn set(&mut self, bytes: usize) {
        let before = self.excess();
        let others = self.connection.incomplete_bytes.get() - self.bytes;
        self.connection.incomplete_bytes.set(others + bytes);
        self.bytes = bytes;
        self.worker_total
            .set(self.worker_total.get() + self.excess() - before);
    }

    /// Returns whether both the connection and the worker exceed their bounds.
    pub(in crate::driver) fn is_exceeded(&self) -> bool {
        self.excess() > 0 && self.worker_total.get() > limits::LARGE_REQUEST_BYTES
    }

    fn excess(&self) -> usize {
        let own = limits::CONNECTION_WINDOW as usize;
        self.connection.incomplete_bytes.get().saturating_sub(own)
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
    fn only_a_connection_above_its_own_bound_exceeds_the_budget() {
        let worker_total = Rc::default();
        let connections = [
            Rc::new(ClientConnection::new(1, None)),
            Rc::new(ClientConnection::new(2, None)),
        ];
        let mut first = ConnectionBudget::new(&connections[0], &worker_total);
        let mut second = ConnectionBudget::new(&connections[0], &worker_total);
        let mut other = ConnectionBudget::new(&connections[1], &worker_total);
        first.set(limits::LARGE_REQUEST_BYTES);
        second.set(limits::CONNECTION_WINDOW as usize);
        assert!(!first.is_exceeded() && !second.is_exceeded());
        second.set(limits::CONNECTION_WINDOW as usize + 1);
        assert!(first.is_exceeded() && second.is_exceeded());
        other.set(limits::CONNECTION_WINDOW as usize);
        assert!(!other.is_exceeded());
        drop(first);
        assert_eq!(worker_total.get(), 1);
        drop((second, other));
        assert_eq!(
            (worker_total.get(), connections[0].incomplete_bytes.get()),
            (0, 0)
        );
    }
}
