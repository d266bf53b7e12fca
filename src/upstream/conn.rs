//! One HTTP/2 connection to etcd and the task that drives it.
//!
//! A connection serves one worker. It takes calls until it is retired: told GOAWAY, near the
//! end of its stream ids, stalled, or no longer needed. Its open calls go on to their end, and
//! the connection closes with the last of them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
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
use crate::net::stream::Stream;
use crate::state_machine::keepalive::{KeepaliveAction, KeepaliveOptions, KeepaliveState};
use crate::state_machine::picker::EndpointId;
use crate::upstream::failure;
use crate::upstream::target::Target;

/// A connection as its callers see it.
pub struct Conn {
    target: Arc<Target>,
    worker: usize,
    /// `None` once retired: with the last handle gone the connection ends by itself.
    send: RefCell<Option<SendRequest<Bytes>>>,
    flusher: Flusher,
    born: Instant,
    open: Cell<usize>,
    /// Calls the peer allows at once, as of the last look: asking at each call would cost a lock.
    most_calls: Cell<usize>,
    /// Bytes of answers that are held here.
    held: Cell<usize>,
}

/// A call that a connection has taken.
pub struct OpenedCall {
    /// The answer to come.
    pub response: ResponseFuture,
    /// Where the request's body goes.
    pub body: SendStream<Bytes>,
    /// Keeps the count of open calls.
    pub guard: CallGuard,
}

/// Counts as one open call of its connection while it lives.
pub struct CallGuard(Rc<Conn>);

impl CallGuard {
    fn new(conn: Rc<Conn>) -> CallGuard {
        conn.open.set(conn.open.get() + 1);
        conn.calls().streams.inc();
        CallGuard(conn)
    }

    /// The connection that took the call.
    pub fn conn(&self) -> &Rc<Conn> {
        &self.0
    }
}

/// Bytes of an answer that are held, counted at the connection they came over while it lives.
pub struct HeldResponse {
    /// `None` for an answer that did not come from etcd just now.
    conn: Option<Rc<Conn>>,
    bytes: usize,
}

impl HeldResponse {
    /// None yet.
    pub fn new(conn: Rc<Conn>) -> HeldResponse {
        HeldResponse {
            conn: Some(conn),
            bytes: 0,
        }
    }

    /// Bytes that are kept here anyway.
    pub fn kept(bytes: usize) -> HeldResponse {
        HeldResponse { conn: None, bytes }
    }

    /// Where they came from just now.
    pub fn conn(&self) -> Option<&Rc<Conn>> {
        self.conn.as_ref()
    }

    /// So many more.
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(conn) = &self.conn {
            conn.held.set(conn.held.get() + bytes);
        }
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this answer, or all of the connection together, are more than may be held. Small
    /// answers are not asked: they cost less than their calls.
    pub fn is_too_much(&self) -> bool {
        let all = self.conn.as_ref().map_or(0, |conn| conn.held.get());
        self.bytes > limits::RESPONSE_BUFFER_BYTES
            || self.bytes > limits::FREE_SEND_BYTES
                && all > limits::RESPONSE_BUFFER_BYTES_PER_CONNECTION
    }
}

impl Drop for HeldResponse {
    fn drop(&mut self) {
        if let Some(conn) = &self.conn {
            conn.held.set(conn.held.get() - self.bytes);
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

/// Why a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// This side let it go, or etcd closed it in good order.
    Closed,
    /// It broke, or did not answer a ping.
    Lost(String),
}

impl Conn {
    /// HTTP/2 over a stream that `worker` has connected to `target`: ready when etcd's preface has arrived, since a stopped
    /// etcd still accepts connections. The returned future drives it and says how it ended.
    pub async fn handshake(
        target: Arc<Target>,
        worker: usize,
        stream: Stream,
        keepalive: KeepaliveOptions,
    ) -> io::Result<(Rc<Conn>, impl Future<Output = Ended> + use<>)> {
        let calls = target.metrics.worker(worker);
        let (io, flusher) = batched(stream, None, calls.traffic.clone());
        let (send, mut h2) = builder()
            .handshake::<_, Bytes>(io)
            .await
            .map_err(io::Error::other)?;
        let pings = h2.ping_pong();
        poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut h2).poll(cx) {
                let why = ended.err().map_or_else(
                    || "closed before any HTTP/2 frame: does the endpoint require TLS?".to_owned(),
                    |e| e.to_string(),
                );
                return Poll::Ready(Err(io::Error::other(why)));
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
            born: now,
            open: Cell::new(0),
            // The peer's first bytes have arrived, and its settings come first.
            most_calls: Cell::new(h2.max_concurrent_send_streams()),
            held: Cell::new(0),
        });
        conn.calls().connections.inc();
        let driver = drive(conn.clone(), h2, pings, keepalive);
        Ok((conn, driver))
    }

    /// The endpoint's id.
    pub fn endpoint(&self) -> EndpointId {
        self.target.id
    }

    /// The endpoint.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What this worker counts of it.
    pub fn calls(&self) -> &EndpointCalls {
        self.target.metrics.worker(self.worker)
    }

    /// How long it has been up.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Calls open now.
    pub fn open_calls(&self) -> usize {
        self.open.get()
    }

    /// Whether it takes one more call now: beyond the peer's limit it would only wait for another
    /// to end, which a watch never does.
    pub fn takes_calls(&self) -> bool {
        !self.is_retired() && self.open.get() < self.most_calls.get()
    }

    /// Whether it was retired.
    pub fn is_retired(&self) -> bool {
        self.send.borrow().is_none()
    }

    /// Takes no more calls; open ones go on.
    pub fn retire(&self) {
        drop(self.send.borrow_mut().take());
    }

    /// Grows with every arrival of bytes.
    pub fn reads(&self) -> u64 {
        self.flusher.reads()
    }

    /// Hands a request to the connection. On failure nothing of it has been sent, and the
    /// connection is retired.
    pub fn open(self: &Rc<Self>, request: Request<()>, end: bool) -> Result<OpenedCall, Failure> {
        // A handle of its own per call: the crate then queues a call above the peer's stream
        // limit instead of refusing it.
        let handle = self.send.borrow().clone();
        let Some(mut handle) = handle else {
            return Err(failure::retired());
        };
        let (response, body) = handle.send_request(request, end).map_err(|e| {
            self.retire();
            failure::not_taken(&e)
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
        self.calls().connections.dec();
    }
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits::UPSTREAM_STREAM_WINDOW)
        .initial_connection_window_size(limits::UPSTREAM_CONNECTION_WINDOW)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_send_buffer_size(limits::SEND_BUFFER_BYTES)
        // etcd is trusted not to flood, and its answers look like one to the defaults.
        .data_frame_budget(usize::MAX)
        .max_concurrent_reset_streams(limits::RESET_MEMORY)
        .reset_stream_duration(limits::RESET_MEMORY_TIME)
        // Clients' cancels must never add up to a GOAWAY that ends everybody's calls.
        .max_local_error_reset_streams(None);
    builder
}

async fn drive(
    conn: Rc<Conn>,
    mut h2: h2::client::Connection<Batched, Bytes>,
    mut pings: Option<PingPong>,
    keepalive: KeepaliveOptions,
) -> Ended {
    let mut silence = KeepaliveState::new(keepalive, conn.reads(), conn.born.into_std());
    let next = |silence: &KeepaliveState, now: Instant| {
        let next: Instant = silence.next_check(now.into_std()).into();
        next.min(now + limits::UPSTREAM_CHECK_INTERVAL)
    };
    let mut look = pin!(sleep_until(next(&silence, conn.born)));
    poll_fn(move |cx| {
        if let Poll::Ready(ended) = Pin::new(&mut h2).poll(cx) {
            // Whatever is still collected (a GOAWAY) is written by the shutdown in `h2`.
            return Poll::Ready(match ended {
                Ok(()) => Ended::Closed,
                Err(e) if e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR) => {
                    Ended::Closed
                }
                Err(e) => Ended::Lost(e.to_string()),
            });
        }
        if let Poll::Ready(Err(e)) = conn.flusher.poll_flush(cx) {
            return Poll::Ready(Ended::Lost(e.to_string()));
        }
        while look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            conn.most_calls.set(h2.max_concurrent_send_streams());
            match silence.check(conn.reads(), conn.open_calls(), now.into_std()) {
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
                    return Poll::Ready(Ended::Lost("keepalive ping timed out".to_owned()));
                }
            }
            look.as_mut().reset(next(&silence, now));
        }
        if let Some(pings) = &mut pings {
            // Takes the answer, so that the next ping can be sent.
            let _ = pings.poll_pong(cx);
        }
        Poll::Pending
    })
    .await
}
