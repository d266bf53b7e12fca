//! Batched io below HTTP/2: many frames, one system call.
//!
//! The `h2` crate flushes after nearly every frame of some size. [`Batched`] takes those writes
//! into one buffer and answers every flush with "done"; the connection's driver calls
//! [`Flusher::poll_flush`] when the connection has nothing more to do, and only then the socket is
//! written. A buffer is borrowed from the worker while it holds something, so an idle
//! connection holds none.
//!
//! Reading, the crate asks for 8 KiB at a time, so that a large message would cost two system calls a
//! frame. Once a read has filled all the room there was, the next takes what the socket has, up to
//! [`limits::READ_AHEAD_BYTES`], into a buffer of the worker's, and the crate is served from there.
//!
//! It also sees every byte that arrives, which is where floods are counted (S1), pings are heard, and
//! where a silent peer shows (E5).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::timeout;

use crate::limits;
use crate::metrics::Traffic;
use crate::net::ahead::Ahead;
use crate::net::stream::Stream;
use crate::state_machine::flood::{Flood, FloodGuard};
use crate::state_machine::ping_strikes::ReceivedPings;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The side of a connection that the `h2` crate reads and writes.
pub struct Batched(Rc<Shared>);

/// The side of a connection that its driver holds.
#[derive(Clone)]
pub struct Flusher(Rc<Shared>);

struct Shared {
    inner: RefCell<Inner>,
    /// Reads that brought bytes; wraps.
    reads: Cell<u64>,
    flood: Cell<Option<Flood>>,
    traffic: Traffic,
}

struct Inner {
    stream: Stream,
    /// Read from the socket and not yet by `h2`; mostly nothing.
    ahead: Option<Ahead>,
    /// The last read left no room: more is likely to be there.
    reads_ahead: bool,
    out: Vec<u8>,
    /// Bytes of `out` already written to the socket.
    written: usize,
    /// The stream took bytes that it may still hold: TLS encrypts more than the socket takes.
    unflushed: bool,
    /// Bytes read and thrown away at the end.
    lingered: usize,
    guard: Option<FloodGuard>,
    first_read: Option<Waker>,
}

/// Splits a connected socket into the side for `h2` and the side for the driver. With a guard,
/// frames are counted against its limits; bytes are counted as traffic.
pub fn batched(stream: Stream, guard: Option<FloodGuard>, traffic: Traffic) -> (Batched, Flusher) {
    let shared = Rc::new(Shared {
        inner: RefCell::new(Inner {
            stream,
            ahead: None,
            reads_ahead: false,
            out: Vec::new(),
            written: 0,
            unflushed: false,
            lingered: 0,
            guard,
            first_read: None,
        }),
        reads: Cell::new(0),
        flood: Cell::new(None),
        traffic,
    });
    (Batched(shared.clone()), Flusher(shared))
}

impl Flusher {
    /// Writes what was collected. `Pending` means the socket is full and the task will be woken.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.inner.borrow_mut();
        if inner.out.is_empty() && !inner.unflushed {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_drain(cx))?;
        ready!(Pin::new(&mut inner.stream).poll_flush(cx))?;
        inner.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Closes in good order, for a side that ends a connection first: what was sent last, a GOAWAY
    /// mostly, must reach a peer that is still sending. Closing a socket with unread bytes resets
    /// it and throws away what the peer has not received; so they are read, for `limit` at most.
    pub async fn linger(&self, limit: Duration) {
        // Either way the socket is closed next.
        let _ = timeout(
            limit,
            poll_fn(|cx| self.0.inner.borrow_mut().poll_linger(cx)),
        )
        .await;
    }

    /// How often bytes have arrived: unchanged between two looks means the peer was silent.
    pub fn reads(&self) -> u64 {
        self.0.reads.get()
    }

    /// Ready as soon as the first byte has arrived.
    pub fn poll_first_read(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.reads.get() > 0 {
            return Poll::Ready(());
        }
        self.0.inner.borrow_mut().first_read = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The pings of this client since the last time, where the guard hears them.
    pub fn take_pings(&self) -> Option<ReceivedPings> {
        self.0.inner.borrow_mut().guard.as_mut()?.take_pings()
    }

    /// Adds a frame to what is collected, behind all that `h2` has written. Left out where that ends
    /// within a frame, which happens with a client that does not read.
    pub fn add_frame(&self, frame: &[u8]) {
        let inner = &mut *self.0.inner.borrow_mut();
        let guard = inner.guard.as_ref();
        if guard.is_some_and(FloodGuard::is_between_frames) {
            inner.out.extend_from_slice(frame);
        }
    }

    /// The limit this client went over, once.
    pub fn take_flood(&self) -> Option<Flood> {
        self.0.flood.take()
    }
}

impl Inner {
    /// Ready when the peer has closed too, or is gone. Beyond what a peer may have on its way
    /// nothing is read any more, and the socket stays as it is until the time is over: a close
    /// would throw away what the peer has not read yet, the GOAWAY with it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        while self.lingered < limits::LINGER_BYTES {
            let mut scratch = [0; 4096];
            let mut unwanted = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut unwanted))?;
            match unwanted.filled().len() {
                0 => return Poll::Ready(Ok(())),
                n => self.lingered += n,
            }
        }
        Poll::Pending
    }

    /// Reads for `h2`, from what was read ahead if there is any.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_none() {
            if !self.reads_ahead || buf.remaining() >= limits::READ_AHEAD_BYTES {
                ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
                self.reads_ahead = buf.remaining() == 0 && self.stream.is_plain();
                return Poll::Ready(Ok(()));
            }
            let ahead = ready!(Ahead::poll_read(cx, &mut self.stream))?;
            self.reads_ahead = ahead.rest().len() == limits::READ_AHEAD_BYTES;
            self.ahead = Some(ahead);
        }
        // Counted as a read of the socket is: `h2` reads on for as long as it is given something, and
        // only the end of its task's turn lets others take what has arrived (S1).
        let turn = ready!(coop::poll_proceed(cx));
        // Nothing in it is the end of the stream.
        self.ahead.take_if(|ahead| ahead.move_to(buf));
        turn.made_progress();
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    self.written += n;
                    self.unflushed = true;
                }
            }
        }
        self.written = 0;
        let mut buffer = std::mem::take(&mut self.out);
        buffer.clear();
        give_back(buffer);
        Poll::Ready(Ok(()))
    }
}

fn borrow() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Makes room in powers of two: a full batch is then in a buffer that is kept.
fn grow(out: &mut Vec<u8>, more: usize) {
    let wanted = out.len() + more;
    if wanted > out.capacity() {
        out.reserve_exact(wanted.next_power_of_two() - out.len());
    }
}

fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() > limits::SPARE_BUFFER_BYTES {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < limits::SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}

impl AsyncRead for Batched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &*self.0;
        let inner = &mut *shared.inner.borrow_mut();
        let before = buf.filled().len();
        ready!(inner.poll_fill(cx, buf))?;
        let arrived = &buf.filled()[before..];
        if arrived.is_empty() {
            return Poll::Ready(Ok(()));
        }
        shared.reads.set(shared.reads.get().wrapping_add(1));
        shared.traffic.came(arrived.len());
        if let Some(waker) = inner.first_read.take() {
            waker.wake();
        }
        if let Some(guard) = &mut inner.guard
            && let Err(flood) = guard.feed(arrived, Instant::now)
        {
            shared.flood.set(Some(flood));
            inner.guard = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Batched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let shared = &*self.0;
        let inner = &mut *shared.inner.borrow_mut();
        if inner.out.len() >= limits::BATCH_BYTES {
            ready!(inner.poll_drain(cx))?;
        }
        if inner.out.capacity() == 0 {
            inner.out = borrow();
        }
        let taken = buf.len().min(limits::BATCH_BYTES - inner.out.len());
        grow(&mut inner.out, taken);
        inner.out.extend_from_slice(&buf[..taken]);
        shared.traffic.left(taken);
        if let Some(guard) = &mut inner.guard {
            guard.sent(&buf[..taken]);
        }
        Poll::Ready(Ok(taken))
    }

    /// Nothing: the driver decides when the socket is written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.inner.borrow_mut();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    /// Every byte arrives once and in order, whatever the pieces it is asked for in, and the end
    /// after the last; much is read ahead, and nothing is kept once it has been taken.
    #[tokio::test]
    async fn reads_ahead_and_loses_nothing() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut io, _flusher) = batched(Stream::Unix(ours), None, Traffic::default());
        let sent: Vec<u8> = (0..500_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        let copy = sent.clone();
        let writer = async move { theirs.write_all(&copy).await.unwrap() };
        let reader = async {
            let (mut received, mut was_ahead) = (Vec::new(), false);
            for size in [8_192, 1, 8_201, 100, 70_000].into_iter().cycle() {
                let mut piece = vec![0; size];
                let n = io.read(&mut piece).await.unwrap();
                was_ahead |= io.0.inner.borrow().ahead.is_some();
                received.extend_from_slice(&piece[..n]);
                if n == 0 {
                    break;
                }
            }
            assert!(received == sent);
            assert!(was_ahead && io.0.inner.borrow().ahead.is_none());
        };
        tokio::join!(writer, reader);
    }

    /// However large a piece it is given, a batch ends at its bound and its buffer is kept.
    #[tokio::test]
    async fn a_batch_has_a_bound() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut io, flusher) = batched(Stream::Unix(ours), None, Traffic::default());
        let sent: Vec<u8> = (0..400_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        let writer = async {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let n = io.write(&rest[..rest.len().min(90_001)]).await.unwrap();
                let inner = io.0.inner.borrow();
                assert!(inner.out.len() <= limits::BATCH_BYTES);
                assert!(inner.out.capacity() <= limits::SPARE_BUFFER_BYTES);
                rest = &rest[n..];
            }
            poll_fn(|cx| flusher.poll_flush(cx)).await.unwrap();
            assert_eq!(io.0.inner.borrow().out.capacity(), 0);
        };
        let reader = async {
            let mut received = vec![0; sent.len()];
            theirs.read_exact(&mut received).await.unwrap();
            assert!(received == sent);
        };
        tokio::join!(writer, reader);
    }
}
