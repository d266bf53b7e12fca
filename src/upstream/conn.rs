//! One HTTP/2 connection to etcd and the task that drives it.
//!
//! A connection belongs to one worker, and accepts calls until it is retired: after a GOAWAY, near
//! the end of its stream ids, when it stalls, or when it is not needed any more. Open calls of a
//! retired connection continue, and the connection closes after the last of them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::time::{Instant, sleep_until};

use crate::error::Failure;
use crate::limits;
use crate::metrics::EndpointCalls;
use crate::net::io::{Batched, Flusher, batched};
use crate::net::stream::ByteStream;
use crate::state_machine::keepalive::{KeepaliveAction, KeepaliveOptions, KeepaliveState};
use crate::state_machine::picker::EndpointId;
use crate::upstream::failure;
use crate::upstream::target::EndpointTarget;

/// A connection to an endpoint, as its callers use it.
pub struct Conn {
    target: Arc<EndpointTarget>,
    worker: usize,
    /// `None` if retired. The connection ends when the last clone of the handle is dropped.
    send: RefCell<Option<SendRequest<Bytes>>>,
    flusher: Flusher,
    connected_at: Instant,
    open: Cell<usize>,
    /// Maximum concurrent calls of the remote side, at the last check. Reading it at each call
    /// would cost a lock.
    max_calls: Cell<usize>,
    /// Bytes of responses that are buffered.
    buffered_bytes: Cell<usize>,
}

/// A call that a connection has accepted.
pub struct OpenedCall {
    /// Future of the response.
    pub response: ResponseFuture,
    /// Stream for the body of the request.
    pub body: SendStream<Bytes>,
    /// Counts the call as open.
    pub guard: CallGuard,
}

/// Counts as one open call of its connection while this value lives.
pub struct CallGuard(Rc<Conn>);

impl CallGuard {
    fn new(conn: Rc<Conn>) -> CallGuard {
        conn.open.set(conn.open.get() + 1);
        conn.calls().streams.inc();
        CallGuard(conn)
    }

    /// Returns the connection of the call.
    pub fn conn(&self) -> &Rc<Conn> {
        &self.0
    }
}

/// Buffered bytes of a response, which count at the connection of the response while this value
/// lives.
pub struct BufferedBytes {
    /// `None` for a response that did not just arrive from etcd.
    conn: Option<Rc<Conn>>,
    bytes: usize,
}

impl BufferedBytes {
    /// Creates a count of zero bytes for a response of this connection.
    pub fn new(conn: Rc<Conn>) -> BufferedBytes {
        BufferedBytes {
            conn: Some(conn),
            bytes: 0,
        }
    }

    /// Creates a count for bytes that a cache or another call already has in memory.
    pub fn uncounted(bytes: usize) -> BufferedBytes {
        BufferedBytes { conn: None, bytes }
    }

    /// Returns the connection of the response. `None`: the response did not just arrive from etcd.
    pub fn conn(&self) -> Option<&Rc<Conn>> {
        self.conn.as_ref()
    }

    /// Adds bytes to the count.
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(conn) = &self.conn {
            conn.buffered_bytes.set(conn.buffered_bytes.get() + bytes);
        }
    }

    /// Returns the number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reports whether this response, or all responses of the connection, exceed the limit of
    /// buffered bytes. The limit of the connection does not apply to small responses: they cost
    /// less than their calls.
    pub fn is_over_limit(&self) -> bool {
        let total = self
            .conn
            .as_ref()
            .map_or(0, |conn| conn.buffered_bytes.get());
        self.bytes > limits::RESPONSE_BUFFER_BYTES
            || self.bytes > limits::FREE_SEND_BYTES
                && total > limits::RESPONSE_BUFFER_BYTES_PER_CONNECTION
    }
}

impl Drop for BufferedBytes {
    fn drop(&mut self) {
        if let Some(conn) = &self.conn {
            conn.buffered_bytes
                .set(conn.buffered_bytes.get() - self.bytes);
        }
    }
}

impl Clone for CallGuard {
    fn clone(&self) -> CallGuard {
        CallGuard::new(self.0.clone())
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.calls().streams.dec();
    }
}

/// Reason for the end of a connection.
#[derive(Debug)]
pub enum ConnectionEnd {
    /// This side closed it, or etcd closed it in order.
    Closed,
    /// It broke, or a ping was not answered.
    Lost(String),
}

impl Conn {
    /// Starts HTTP/2 over a stream that `worker` has connected to `target`. Returns when the
    /// preface of etcd has arrived, because a stopped etcd still accepts connections. The returned
    /// future drives the connection and returns the reason for its end.
    ///
    /// # Errors
    /// The connection ended before the preface.
    pub async fn handshake(
        target: Arc<EndpointTarget>,
        worker: usize,
        stream: ByteStream,
        keepalive: KeepaliveOptions,
    ) -> io::Result<(Rc<Conn>, impl Future<Output = ConnectionEnd> + use<>)> {
        let calls = target.metrics.worker(worker);
        let (io, flusher) = batched(stream, None, calls.traffic.clone());
        let (send, mut h2) = builder()
            .handshake::<_, Bytes>(io)
            .await
            .map_err(io::Error::other)?;
        let pings = h2.ping_pong();
        poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut h2).poll(cx) {
                return Poll::Ready(Err(no_preface(flusher.take_read_error(), ended.err())));
            }
            if let Poll::Ready(Err(e)) = flusher.poll_flush(cx) {
                return Poll::Ready(Err(e));
            }
            flusher.poll_first_read(cx).map(Ok)
        })
        .await?;
        let now = Instant::now();
        let conn = Rc::new(Conn {
            target,
            worker,
            send: RefCell::new(Some(send)),
            flusher,
            connected_at: now,
            open: Cell::new(0),
            // The first bytes of the remote side have arrived, and its SETTINGS frame is first.
            max_calls: Cell::new(h2.max_concurrent_send_streams()),
            buffered_bytes: Cell::new(0),
        });
        conn.calls().connections.inc();
        let usable = &conn.target.usable_connections;
        usable.fetch_add(1, Ordering::Relaxed);
        let driver = drive(conn.clone(), h2, pings, keepalive);
        Ok((conn, driver))
    }

    /// Returns the id of the endpoint.
    pub fn endpoint(&self) -> EndpointId {
        self.target.id
    }

    /// Returns the endpoint with its addressing and metrics.
    pub fn target(&self) -> &EndpointTarget {
        &self.target
    }

    /// Returns the metrics of the endpoint that this worker counts.
    pub fn calls(&self) -> &EndpointCalls {
        self.target.metrics.worker(self.worker)
    }

    /// Returns the time since the connection was established.
    pub fn age(&self) -> Duration {
        self.connected_at.elapsed()
    }

    /// Returns the number of open calls.
    pub fn open_calls(&self) -> usize {
        self.open.get()
    }

    /// Reports whether the connection accepts one more call now. A call above the limit of the
    /// remote side would wait for the end of another call, and a watch never ends.
    pub fn takes_calls(&self) -> bool {
        !self.is_retired() && self.open.get() < self.max_calls.get()
    }

    /// Reports whether the connection is retired.
    pub fn is_retired(&self) -> bool {
        self.send.borrow().is_none()
    }

    /// Retires the connection: it accepts no more calls, and open calls continue.
    pub fn retire(&self) {
        if self.send.borrow_mut().take().is_some() {
            let usable = &self.target.usable_connections;
            usable.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of reads that returned bytes. Wraps.
    pub fn reads(&self) -> u64 {
        self.flusher.reads()
    }

    /// Opens a call. `end`: the request has no body.
    ///
    /// # Errors
    /// The connection is retired, or it rejected the call. Then nothing of the call has been sent,
    /// and the connection is retired.
    pub fn open(self: &Rc<Self>, request: Request<()>, end: bool) -> Result<OpenedCall, Failure> {
        // Each call has its own handle. Then the crate queues a call above the stream limit of the
        // remote side instead of rejecting it.
        let handle = self.send.borrow().clone();
        let Some(mut handle) = handle else {
            return Err(failure::retired());
        };
        let (response, body) = handle.send_request(request, end).map_err(|e| {
            self.retire();
            failure::not_accepted(&e)
        })?;
        self.calls().requests.inc();
        if body.stream_id().as_u32() >= limits::LAST_STREAM_ID {
            self.retire();
        }
        Ok(OpenedCall {
            response,
            body,
            guard: CallGuard::new(self.clone()),
        })
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.retire();
        self.calls().connections.dec();
    }
}

/// Returns the error of a connection that ended before the preface of etcd arrived. The error of
/// the socket or of TLS shows more than that of HTTP/2.
fn no_preface(read: Option<io::Error>, ended: Option<h2::Error>) -> io::Error {
    let closed = || {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed before any HTTP/2 frame",
        )
    };
    read.unwrap_or_else(|| ended.map_or_else(closed, io::Error::other))
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits::UPSTREAM_STREAM_WINDOW)
        .initial_connection_window_size(limits::UPSTREAM_CONNECTION_WINDOW)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_send_buffer_size(limits::SEND_BUFFER_BYTES)
        // etcd is trusted not to flood, and the default budget would take its responses for a
        // flood.
        .data_frame_budget(usize::MAX)
        .max_concurrent_reset_streams(limits::RESET_MEMORY)
        .reset_stream_duration(limits::RESET_MEMORY_TIME)
        // Cancelled calls of clients must never cause a GOAWAY that ends all other calls.
        .max_local_error_reset_streams(None);
    builder
}

async fn drive(
    conn: Rc<Conn>,
    mut h2: h2::client::Connection<Batched, Bytes>,
    mut pings: Option<PingPong>,
    keepalive: KeepaliveOptions,
) -> ConnectionEnd {
    let mut state = KeepaliveState::new(keepalive, conn.reads(), conn.connected_at.into_std());
    let next = |state: &KeepaliveState, now: Instant| {
        let next: Instant = state.next_check(now.into_std()).into();
        next.min(now + limits::UPSTREAM_CHECK_INTERVAL)
    };
    let mut next_check = pin!(sleep_until(next(&state, conn.connected_at)));
    poll_fn(move |cx| {
        if let Poll::Ready(ended) = Pin::new(&mut h2).poll(cx) {
            // The shutdown in `h2` writes the bytes that are still collected, such as a GOAWAY.
            return Poll::Ready(match ended {
                Ok(()) => ConnectionEnd::Closed,
                Err(e) if e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR) => {
                    ConnectionEnd::Closed
                }
                Err(e) => ConnectionEnd::Lost(e.to_string()),
            });
        }
        if let Poll::Ready(Err(e)) = conn.flusher.poll_flush(cx) {
            return Poll::Ready(ConnectionEnd::Lost(e.to_string()));
        }
        while next_check.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            conn.max_calls.set(h2.max_concurrent_send_streams());
            match state.check(conn.reads(), conn.open_calls(), now.into_std()) {
                KeepaliveAction::Fine => {}
                KeepaliveAction::Ping => {
                    if let Some(pings) = &mut pings {
                        // An error means that the last ping is still unanswered.
                        let _ = pings.send_ping(Ping::opaque());
                    }
                    cx.waker().wake_by_ref();
                }
                KeepaliveAction::Dead => {
                    conn.retire();
                    return Poll::Ready(ConnectionEnd::Lost("keepalive ping timed out".to_owned()));
                }
            }
            next_check.as_mut().reset(next(&state, now));
        }
        if let Some(pings) = &mut pings {
            // Takes the response, so that the next ping can be sent.
            let _ = pings.poll_pong(cx);
        }
        Poll::Pending
    })
    .await
}
