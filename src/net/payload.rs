//! Payload of DATA frames towards clients, and the count of queued bytes (W9, S1).
//!
//! A [`Payload`] is a short head of its own and a tail that streams may share. Both are sent as one
//! frame without a copy. Its bytes count as queued until they are sent. A [`SendNotifier`] reports
//! which streams have sent how many bytes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::limits;

/// Maximum bytes of the head of a payload.
pub const HEAD_BYTES: usize = 22;

/// A head and a tail, and the queue that counts their bytes.
#[derive(Debug, Default)]
pub struct Payload {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` in use.
    len: u8,
    /// Bytes of `head` that have been read.
    taken: u8,
    tail: Bytes,
    queued: Option<Queued>,
}

impl Payload {
    /// Creates a payload of a head of at most [`HEAD_BYTES`] and a tail.
    ///
    /// # Panics
    /// The head is longer.
    pub fn new(head: &[u8], tail: Bytes) -> Payload {
        let mut payload = Payload::from(tail);
        payload.head[..head.len()].copy_from_slice(head);
        payload.len = head.len() as u8;
        payload
    }

    /// Returns the bytes that are left, in two parts.
    pub fn parts(&self) -> [&[u8]; 2] {
        let head = &self.head[usize::from(self.taken)..usize::from(self.len)];
        [head, &self.tail]
    }

    /// Counts `bytes` in a queue until the payload is sent, or dropped unsent.
    pub fn counted_in(mut self, queue: &Rc<StreamQueue>, bytes: usize) -> Payload {
        queue.add(bytes);
        self.queued = Some(Queued {
            queue: queue.clone(),
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
        // No truncation: at most HEAD_BYTES.
        self.taken += head as u8;
        self.tail.advance(count - head);
    }
}

/// Bytes that count in a queue while this value lives.
#[derive(Debug)]
struct Queued {
    queue: Rc<StreamQueue>,
    bytes: usize,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queue.sent(self.bytes);
    }
}

/// Bytes that one client stream has queued.
#[derive(Debug)]
pub struct StreamQueue {
    stream: u64,
    /// Minimum bytes of one report.
    step: usize,
    queued: Cell<usize>,
    /// Bytes that are sent and not reported yet.
    unreported: Cell<usize>,
    connection: Rc<ConnectionQueue>,
}

/// Bytes that all client streams of one connection have queued.
#[derive(Debug)]
pub struct ConnectionQueue {
    queued: Cell<usize>,
    /// Reports are delayed while more bytes than this are queued.
    max_queued: usize,
    /// Reports that are delayed.
    delayed: RefCell<Vec<SentBytes>>,
    notifier: Rc<SendNotifier>,
}

/// Report that a client stream has sent bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentBytes {
    /// Number of the stream, as in [`StreamQueue::new`].
    pub stream: u64,
    /// Bytes sent since the last report of the stream.
    pub bytes: usize,
}

/// Collects the reports of one worker.
#[derive(Debug, Default)]
pub struct SendNotifier {
    sent: RefCell<Vec<SentBytes>>,
    waker: RefCell<Option<Waker>>,
}

impl StreamQueue {
    /// Creates the queue of a client stream. Sent bytes are reported in steps of at least `step`
    /// bytes.
    pub fn new(stream: u64, step: usize, connection: Rc<ConnectionQueue>) -> Rc<StreamQueue> {
        Rc::new(StreamQueue {
            stream,
            step,
            queued: Cell::new(0),
            unreported: Cell::new(0),
            connection,
        })
    }

    /// Returns the bytes queued on this stream.
    pub fn queued(&self) -> usize {
        self.queued.get()
    }

    /// Returns the bytes queued on the connection, with [`limits::MESSAGE_COST`] for each message.
    pub fn connection_queued(&self) -> usize {
        self.connection.queued.get()
    }

    fn add(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
        let total = &self.connection.queued;
        total.set(total.get() + bytes + limits::MESSAGE_COST);
    }

    /// Called within the HTTP/2 layer, so it only updates counters and stores reports.
    fn sent(&self, bytes: usize) {
        self.queued.set(self.queued.get() - bytes);
        self.connection.sent(bytes);
        self.unreported.set(self.unreported.get() + bytes);
        if self.unreported.get() >= self.step {
            let bytes = self.unreported.replace(0);
            self.connection.report(SentBytes {
                stream: self.stream,
                bytes,
            });
        }
    }
}

impl ConnectionQueue {
    /// Creates the queue of one connection. While more than `max_queued` bytes are queued on it,
    /// the reports of all its streams are delayed.
    pub fn new(max_queued: usize, notifier: Rc<SendNotifier>) -> Rc<ConnectionQueue> {
        Rc::new(ConnectionQueue {
            queued: Cell::new(0),
            max_queued,
            delayed: RefCell::default(),
            notifier,
        })
    }

    fn sent(&self, bytes: usize) {
        let queued = self.queued.get() - bytes - limits::MESSAGE_COST;
        self.queued.set(queued);
        if queued <= self.max_queued {
            self.delayed
                .borrow_mut()
                .drain(..)
                .for_each(|sent| self.notifier.add(sent));
        }
    }

    /// Reports sent bytes now, or later if too many bytes are queued.
    fn report(&self, sent: SentBytes) {
        if self.queued.get() <= self.max_queued {
            self.notifier.add(sent);
        } else {
            self.delayed.borrow_mut().push(sent);
        }
    }
}

impl SendNotifier {
    /// Moves the collected reports to `sent`, which must be empty. Pending if there are none.
    pub fn poll(&self, cx: &mut Context<'_>, sent: &mut Vec<SentBytes>) -> Poll<()> {
        std::mem::swap(sent, &mut self.sent.borrow_mut());
        if sent.is_empty() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn add(&self, sent: SentBytes) {
        self.sent.borrow_mut().push(sent);
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

    fn reported(notifier: &SendNotifier) -> Vec<(u64, usize)> {
        let mut sent = Vec::new();
        let _ = notifier.poll(&mut Context::from_waker(Waker::noop()), &mut sent);
        sent.iter().map(|sent| (sent.stream, sent.bytes)).collect()
    }

    proptest! {
        /// The bytes are those of the head and then the tail, for every sequence of reads.
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
    fn sent_bytes_are_reported_in_steps() {
        let notifier = Rc::new(SendNotifier::default());
        let queue = StreamQueue::new(7, 4, ConnectionQueue::new(10_000, notifier.clone()));
        let send = |n: usize| Payload::from(Bytes::from(vec![0; n])).counted_in(&queue, n);
        let (first, second, third) = (send(3), send(4), send(2));
        assert_eq!(queue.queued(), 9);
        assert_eq!(queue.connection_queued(), 9 + 3 * limits::MESSAGE_COST);
        drop(first);
        assert_eq!(reported(&notifier), []);
        drop(third);
        assert_eq!(reported(&notifier), [(7, 5)]);
        drop(second);
        assert_eq!(reported(&notifier), [(7, 4)]);
        assert_eq!((queue.queued(), queue.connection_queued()), (0, 0));
    }

    #[test]
    fn a_full_connection_delays_the_reports_of_all_streams() {
        let notifier = Rc::new(SendNotifier::default());
        let total = ConnectionQueue::new(10 + limits::MESSAGE_COST, notifier.clone());
        let full = StreamQueue::new(1, 5, total.clone());
        let other = StreamQueue::new(2, 5, total.clone());
        let send = |queue, n: usize| Payload::from(Bytes::from(vec![0; n])).counted_in(queue, n);
        let (first, second) = (send(&full, 11), send(&other, 6));
        drop(second);
        assert_eq!(
            (reported(&notifier), other.connection_queued()),
            (vec![], 11 + limits::MESSAGE_COST)
        );
        drop(first);
        assert_eq!(reported(&notifier), [(2, 6), (1, 11)]);
    }
}
