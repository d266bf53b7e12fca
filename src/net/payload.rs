//! What a DATA frame towards a client carries: a few bytes of its own in front of bytes it may
//! share with other streams, sent as one without a copy (W9, S1: counted until they have left).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::limits;

/// Bytes that fit in front of a tail.
pub const HEAD_BYTES: usize = 22;

/// A head, a tail, and who is told when they have left.
#[derive(Debug, Default)]
pub struct Payload {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` in use.
    len: u8,
    /// Bytes of `head` that have been taken.
    taken: u8,
    tail: Bytes,
    queued: Option<Queued>,
}

impl Payload {
    /// A head of at most [`HEAD_BYTES`], and what follows it.
    ///
    /// # Panics
    /// When the head is longer.
    pub fn new(head: &[u8], tail: Bytes) -> Payload {
        let mut payload = Payload::from(tail);
        payload.head[..head.len()].copy_from_slice(head);
        payload.len = head.len() as u8;
        payload
    }

    /// Counts it at an account until it has left or is dropped unsent.
    pub fn counted(mut self, account: &Rc<StreamQueue>) -> Payload {
        let bytes = self.remaining();
        account.add(bytes);
        self.queued = Some(Queued {
            account: account.clone(),
            bytes,
        });
        self
    }
}

impl From<Bytes> for Payload {
    fn from(tail: Bytes) -> Payload {
        Payload {
            tail,
            ..Payload::default()
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        usize::from(self.len - self.taken) + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        match &self.head[usize::from(self.taken)..usize::from(self.len)] {
            [] => &self.tail,
            head => head,
        }
    }

    fn advance(&mut self, count: usize) {
        let head = count.min(usize::from(self.len - self.taken));
        // At most HEAD_BYTES.
        self.taken += head as u8;
        self.tail.advance(count - head);
    }
}

/// Bytes at an account while it lives.
#[derive(Debug)]
struct Queued {
    account: Rc<StreamQueue>,
    bytes: usize,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.account.left(self.bytes);
    }
}

/// What one stream has queued towards its client.
#[derive(Debug)]
pub struct StreamQueue {
    stream: u64,
    /// What left is told when it comes to so much.
    step: usize,
    queued: Cell<usize>,
    /// Has left and was not told yet.
    left: Cell<usize>,
    total: Rc<ConnectionQueue>,
}

/// What all streams of one connection have queued.
#[derive(Debug)]
pub struct ConnectionQueue {
    queued: Cell<usize>,
    /// Nothing is told while more is queued.
    most: usize,
    /// What is told then.
    held: RefCell<Vec<Left>>,
    board: Rc<SendNotifier>,
}

/// So many bytes of a stream have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// As its account names it.
    pub stream: u64,
    /// Since it was last told.
    pub bytes: usize,
}

/// Where it is told what has left: one per worker.
#[derive(Debug, Default)]
pub struct SendNotifier {
    left: RefCell<Vec<Left>>,
    waker: RefCell<Option<Waker>>,
}

impl StreamQueue {
    /// For a stream by this name. What leaves is told in steps of `step` bytes and more.
    pub fn new(stream: u64, step: usize, total: Rc<ConnectionQueue>) -> Rc<StreamQueue> {
        Rc::new(StreamQueue {
            stream,
            step,
            queued: Cell::new(0),
            left: Cell::new(0),
            total,
        })
    }

    /// Bytes queued.
    pub fn queued(&self) -> usize {
        self.queued.get()
    }

    /// Bytes queued on the stream's connection, with what each message costs.
    pub fn total(&self) -> usize {
        self.total.queued.get()
    }

    fn add(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
        let total = &self.total.queued;
        total.set(total.get() + bytes + limits::MESSAGE_COST);
    }

    /// Runs within the HTTP/2 layer: it may note, and nothing else.
    fn left(&self, bytes: usize) {
        self.queued.set(self.queued.get() - bytes);
        self.total.left(bytes);
        self.left.set(self.left.get() + bytes);
        if self.left.get() >= self.step {
            let bytes = self.left.replace(0);
            self.total.tell(Left {
                stream: self.stream,
                bytes,
            });
        }
    }
}

impl ConnectionQueue {
    /// For one connection: while more than `most` bytes are queued on it, none of its streams is
    /// told that it has room again.
    pub fn new(most: usize, board: Rc<SendNotifier>) -> Rc<ConnectionQueue> {
        Rc::new(ConnectionQueue {
            queued: Cell::new(0),
            most,
            held: RefCell::default(),
            board,
        })
    }

    fn left(&self, bytes: usize) {
        let queued = self.queued.get() - bytes - limits::MESSAGE_COST;
        self.queued.set(queued);
        if queued <= self.most {
            self.held
                .borrow_mut()
                .drain(..)
                .for_each(|left| self.board.note(left));
        }
    }

    fn tell(&self, left: Left) {
        if self.queued.get() <= self.most {
            self.board.note(left);
        } else {
            self.held.borrow_mut().push(left);
        }
    }
}

impl SendNotifier {
    /// Ready with what was noted, in `left`, which is empty before.
    pub fn poll(&self, cx: &mut Context<'_>, left: &mut Vec<Left>) -> Poll<()> {
        std::mem::swap(left, &mut self.left.borrow_mut());
        if left.is_empty() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn note(&self, left: Left) {
        self.left.borrow_mut().push(left);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noted(board: &SendNotifier) -> Vec<(u64, usize)> {
        let mut left = Vec::new();
        let _ = board.poll(&mut Context::from_waker(Waker::noop()), &mut left);
        left.iter().map(|left| (left.stream, left.bytes)).collect()
    }

    proptest! {
        /// However it is taken, it is the head and then the tail.
        #[test]
        fn reads_head_then_tail(
            head in prop::collection::vec(any::<u8>(), 0..=HEAD_BYTES),
            tail in prop::collection::vec(any::<u8>(), 0..40),
            steps in prop::collection::vec(1usize..9, 0..80),
        ) {
            let mut payload = Payload::new(&head, tail.clone().into());
            let all = [head, tail].concat();
            let mut at = 0;
            for step in steps {
                let step = step.min(payload.remaining());
                payload.advance(step);
                at += step;
                prop_assert_eq!(payload.remaining(), all.len() - at);
                prop_assert!(all[at..].starts_with(payload.chunk()));
            }
            let rest = payload.copy_to_bytes(payload.remaining());
            prop_assert_eq!(&rest, &all[at..]);
        }
    }

    #[test]
    fn what_has_left_is_told_in_steps() {
        let board = Rc::new(SendNotifier::default());
        let account = StreamQueue::new(7, 4, ConnectionQueue::new(10_000, board.clone()));
        let send = |n: usize| Payload::from(Bytes::from(vec![0; n])).counted(&account);
        let (first, second, third) = (send(3), send(4), send(2));
        assert_eq!(account.queued(), 9);
        assert_eq!(account.total(), 9 + 3 * limits::MESSAGE_COST);
        drop(first);
        assert_eq!(noted(&board), []);
        drop(third);
        assert_eq!(noted(&board), [(7, 5)]);
        drop(second);
        assert_eq!(noted(&board), [(7, 4)]);
        assert_eq!((account.queued(), account.total()), (0, 0));
    }

    #[test]
    fn a_full_connection_holds_back_all_its_streams() {
        let board = Rc::new(SendNotifier::default());
        let total = ConnectionQueue::new(10 + limits::MESSAGE_COST, board.clone());
        let full = StreamQueue::new(1, 5, total.clone());
        let other = StreamQueue::new(2, 5, total.clone());
        let send = |account, n: usize| Payload::from(Bytes::from(vec![0; n])).counted(account);
        let (first, second) = (send(&full, 11), send(&other, 6));
        drop(second);
        assert_eq!(
            (noted(&board), other.total()),
            (vec![], 11 + limits::MESSAGE_COST)
        );
        drop(first);
        assert_eq!(noted(&board), [(2, 6), (1, 11)]);
    }
}
