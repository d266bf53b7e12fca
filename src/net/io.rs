//! Batched reads and writes below HTTP/2: many frames with one system call.
//!
//! The `h2` crate flushes after nearly every frame of some size. [`Batched`] collects these writes
//! in one buffer and reports every flush as complete. The driver of the connection calls
//! [`Flusher::poll_flush`] when the connection has nothing more to do, and only then the socket is
//! written. The buffer is borrowed from the worker while it contains bytes, so an idle connection
//! has none.
//!
//! The crate reads 8 KiB at a time, so a large message would cost two system calls a frame. If a
//! read fills its whole buffer, the next read takes all available bytes of the socket, up to
//! [`limits::READ_AHEAD_BYTES`], into a buffer of the worker. The crate then reads from this
//! buffer.
//!
//! All received bytes pass this module. Therefore it also counts floods (S1), observes pings, and
//! detects a silent remote side (E5).

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
use crate::net::stream::ByteStream;
use crate::state_machine::flood::{Flood, FloodGuard};
use crate::state_machine::ping_strikes::ReceivedPings;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The side of a connection that the `h2` crate reads and writes.
pub struct Batched(Rc<Shared>);

/// The side of a connection that its driver uses.
#[derive(Clone)]
pub struct Flusher(Rc<Shared>);

struct Shared {
    inner: RefCell<Inner>,
    /// Number of reads that returned bytes. Wraps.
    reads: Cell<u64>,
    flood: Cell<Option<Flood>>,
    traffic: Traffic,
}

struct Inner {
    stream: ByteStream,
    /// Bytes read from the socket and not yet by `h2`. Usually `None`.
    ahead: Option<Ahead>,
    /// The last read filled its buffer, so more bytes are likely to be available.
    reads_ahead: bool,
    out: Vec<u8>,
    /// Bytes of `out` already written to the socket.
    written: usize,
    /// The stream has taken bytes that it may still buffer: TLS encrypts more than the socket
    /// takes.
    unflushed: bool,
    /// Bytes read and discarded while the connection lingers, in bytes.
    lingered: usize,
    guard: Option<FloodGuard>,
    first_read: Option<Waker>,
    /// The error that ended reading. `h2` keeps only the kind and the text of its copy.
    read_error: Option<io::Error>,
}

/// Splits a connected socket into the side for `h2` and the side for the driver. A guard counts the
/// frames against its limits. Bytes are counted in `traffic`.
pub fn batched(
    stream: ByteStream,
    guard: Option<FloodGuard>,
    traffic: Traffic,
) -> (Batched, Flusher) {
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
            read_error: None,
        }),
        reads: Cell::new(0),
        flood: Cell::new(None),
        traffic,
    });
    (Batched(shared.clone()), Flusher(shared))
}

impl Flusher {
    /// Writes the collected bytes. `Pending`: the socket is full, and the task will be woken.
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

    /// Closes the connection in order, for the side that ends it first. The last bytes sent,
    /// usually a GOAWAY, must reach the remote side even if it is still sending. Closing a socket
    /// with unread bytes resets the connection and discards bytes that the remote side has not
    /// received. Therefore the unread bytes are read, for at most `limit`.
    pub async fn linger(&self, limit: Duration) {
        // The socket is closed next in either case.
        let _ = timeout(
            limit,
            poll_fn(|cx| self.0.inner.borrow_mut().poll_linger(cx)),
        )
        .await;
    }

    /// Returns the number of reads that returned bytes. If it is unchanged between two checks, the
    /// remote side was silent.
    pub fn reads(&self) -> u64 {
        self.0.reads.get()
    }

    /// Ready when the first byte has arrived.
    pub fn poll_first_read(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.reads.get() > 0 {
            return Poll::Ready(());
        }
        self.0.inner.borrow_mut().first_read = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Returns the error that ended reading, once.
    pub fn take_read_error(&self) -> Option<io::Error> {
        self.0.inner.borrow_mut().read_error.take()
    }

    /// Returns the pings of this client since the last call, if the guard counts pings.
    pub fn take_pings(&self) -> Option<ReceivedPings> {
        self.0.inner.borrow_mut().guard.as_mut()?.take_pings()
    }

    /// Adds a frame behind all bytes that `h2` has written. Skips it if those bytes end within a
    /// frame, which happens with a client that does not read.
    pub fn add_frame(&self, frame: &[u8]) {
        let inner = &mut *self.0.inner.borrow_mut();
        let guard = inner.guard.as_ref();
        if guard.is_some_and(FloodGuard::is_between_frames) {
            inner.out.extend_from_slice(frame);
        }
    }

    /// Returns the limit that this client has exceeded, once.
    pub fn take_flood(&self) -> Option<Flood> {
        self.0.flood.take()
    }
}

impl Inner {
    /// Ready when the remote side has closed the connection too. After [`limits::LINGER_BYTES`],
    /// nothing more is read, and the socket stays open until the time limit of the caller. A close
    /// would discard bytes that the remote side has not read yet, with the GOAWAY.
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

    /// Reads for `h2`, from the bytes that were read ahead if there are any.
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
        // Counted like a read of the socket. `h2` reads on while bytes are available, and only the
        // end of the turn of its task lets other tasks handle what they have received (S1).
        let turn = ready!(coop::poll_proceed(cx));
        // An empty buffer means the end of the stream.
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
        return_buffer(buffer);
        Poll::Ready(Ok(()))
    }
}

fn borrow() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Reserves space in powers of two, so the buffer of a full batch is small enough to be reused.
fn grow(out: &mut Vec<u8>, more: usize) {
    let wanted = out.len() + more;
    if wanted > out.capacity() {
        out.reserve_exact(wanted.next_power_of_two() - out.len());
    }
}

fn return_buffer(buffer: Vec<u8>) {
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
        if let Err(error) = ready!(inner.poll_fill(cx, buf)) {
            let copy = io::Error::new(error.kind(), error.to_string());
            inner.read_error = Some(error);
            return Poll::Ready(Err(copy));
        }
        let arrived = &buf.filled()[before..];
        if arrived.is_empty() {
            return Poll::Ready(Ok(()));
        }
        shared.reads.set(shared.reads.get().wrapping_add(1));
        shared.traffic.add_received(arrived.len());
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
        shared.traffic.add_sent(taken);
        if let Some(guard) = &mut inner.guard {
            guard.sent(&buf[..taken]);
        }
        Poll::Ready(Ok(taken))
    }

    /// Does nothing: the driver decides when the socket is written.
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
    use crate::net::socket::Socket;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    /// Every byte arrives once and in order, for every read size, and the end follows the last
    /// byte. Bytes are read ahead, and the buffer is returned after its last byte.
    #[tokio::test]
    async fn reads_ahead_and_loses_nothing() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut io, _flusher) = batched(
            ByteStream::Plain(Socket::Unix(ours)),
            None,
            Traffic::default(),
        );
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

    /// A batch ends at its limit, however large a write is, and its buffer is reused.
    #[tokio::test]
    async fn a_batch_has_a_bound() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut io, flusher) = batched(
            ByteStream::Plain(Socket::Unix(ours)),
            None,
            Traffic::default(),
        );
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
