//! Client stream that shares upstream work with other streams: its response side and its end.
//!
//! One task reads the requests of the client. Responses are sent from the task that receives them
//! from etcd. The stream counts bytes that have not left yet, because no back-pressure reaches the
//! senders (S1).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Buf;
use h2::SendStream;
use h2::server::SendResponse;

use crate::call_log::open_call::LoggedCall;
use crate::driver::state::connection::ClientConnection;
use crate::driver::state::identity::Session;
use crate::driver::state::reply;
use crate::driver::state::store_revision::StoreRevision;
use crate::limits;
use crate::metrics::WorkerMetrics;
use crate::net::payload::{Payload, StreamQueue};
use crate::wire::compression::{self, Encoding};
use crate::wire::status::{Code, Status};

/// Response side of a client stream.
pub(in crate::driver) struct ClientStream {
    sender: RefCell<ResponseSender>,
    queue: Rc<StreamQueue>,
    session: Session,
    connection: Rc<ClientConnection>,
    /// Index of the method in the metrics tables.
    method: Option<usize>,
    /// The client requires a leader: it gets an error when there is none (W12).
    requires_leader: bool,
    /// Compression of the responses.
    encoding: Encoding,
    /// Log entry of the call.
    log: Option<Rc<LoggedCall>>,
    /// Code with which the stream ended. The task that reads requests must stop then.
    ended: Cell<Option<Code>>,
    /// Waker of the task that reads requests.
    waker: Cell<Option<Waker>>,
}

/// Sender of responses. As at etcd, the response starts with the first message. A stream that ends
/// without a message has its status in the response head.
enum ResponseSender {
    NotStarted(SendResponse<Payload>),
    Started(SendStream<Payload>),
}

impl ResponseSender {
    /// Starts the response if it has not started. Returns `None` if the client has left.
    fn start(&mut self, encoding: Encoding) -> Option<&mut SendStream<Payload>> {
        if let ResponseSender::NotStarted(respond) = self {
            let mut head = reply::head();
            encoding.write(head.headers_mut());
            *self = ResponseSender::Started(respond.send_response(head, false).ok()?);
        }
        match self {
            ResponseSender::Started(stream) => Some(stream),
            ResponseSender::NotStarted(_) => None,
        }
    }
}

/// Returns the send capacity, in bytes, of a new stream on a connection with `streams` streams. The
/// capacities of all streams of a connection stay near [`limits::MAX_STALLED_BYTES`] in total.
pub(in crate::driver) fn send_capacity(streams: usize) -> usize {
    if streams < limits::FULL_CAPACITY_STREAMS {
        limits::STREAM_SEND_CAPACITY
    } else {
        limits::FREE_SEND_BYTES
    }
}

impl ClientStream {
    /// Creates a stream; its response starts with the first message. Messages are compressed as
    /// `encoding` requires.
    #[expect(clippy::too_many_arguments, reason = "the parts of one call")]
    pub(in crate::driver) fn new(
        respond: SendResponse<Payload>,
        queue: Rc<StreamQueue>,
        session: Session,
        connection: Rc<ClientConnection>,
        method: Option<usize>,
        requires_leader: bool,
        encoding: Encoding,
        log: Option<Rc<LoggedCall>>,
    ) -> ClientStream {
        ClientStream {
            sender: RefCell::new(ResponseSender::NotStarted(respond)),
            queue,
            session,
            connection,
            method,
            requires_leader,
            encoding,
            log,
            ended: Cell::new(None),
            waker: Cell::new(None),
        }
    }

    /// Returns the session: the identity of the client and its token.
    pub(in crate::driver) fn session(&self) -> &Session {
        &self.session
    }

    /// Returns whether the client requires a leader (W12).
    pub(in crate::driver) fn requires_leader(&self) -> bool {
        self.requires_leader
    }

    /// Logs bytes received from the client.
    pub(in crate::driver) fn received(&self, chunk: &[u8]) {
        if let Some(log) = &self.log {
            log.count_received(chunk);
        }
    }

    /// Counts a message received from the client.
    pub(in crate::driver) fn message_received(&self, counters: &WorkerMetrics) {
        if let Some(method) = self.method {
            counters.calls[method].received.inc();
        }
    }

    /// Returns the bytes queued for the client.
    pub(in crate::driver) fn queued(&self) -> usize {
        self.queue.queued()
    }

    /// Sends one message. The connection's revision floor rises to the revision of the store, which
    /// no message exceeds.
    ///
    /// Returns false if the streams of the connection together queue too many bytes (S1); the
    /// stream is reset then.
    #[must_use]
    pub(in crate::driver) fn send(
        &self,
        store_revision: &StoreRevision,
        counters: &WorkerMetrics,
        payload: Payload,
    ) -> bool {
        self.connection
            .raise_revision_floor(store_revision, store_revision.revision());
        // The hub has used as much send capacity, so as much is returned to it.
        let capacity = payload.remaining();
        let payload = match self.encoding {
            Encoding::Identity => payload,
            Encoding::Gzip => compressed(payload),
        };
        if let Some(log) = &self.log {
            log.count_sent_message(payload.remaining());
        }
        let payload = payload.counted_in(&self.queue, capacity);
        let mut sender = self.sender.borrow_mut();
        let Some(stream) = sender.start(self.encoding) else {
            // The client has left, which the reading task detects.
            return true;
        };
        // An error means that the client has left.
        let _ = stream.send_data(payload, false);
        if let Some(method) = self.method {
            counters.calls[method].sent.inc();
        }
        if self.queue.connection_queued() <= limits::MAX_STALLED_BYTES {
            return true;
        }
        stream.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        self.ended.set(Some(Code::ResourceExhausted));
        self.wake();
        false
    }

    /// Ends the stream with a status.
    pub(in crate::driver) fn end(&self, status: &Status) {
        let code = match &mut *self.sender.borrow_mut() {
            ResponseSender::NotStarted(respond) => reply::trailers_only(respond, status),
            ResponseSender::Started(stream) => reply::trailers(stream, status),
        };
        self.ended.set(Some(code));
        self.wake();
    }

    /// Returns the code with which the stream ended, if it has ended.
    pub(in crate::driver) fn ended(&self) -> Option<Code> {
        self.ended.get()
    }

    /// Wakes the task that reads requests.
    pub(in crate::driver) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Registers the waker of the task that reads requests.
    pub(in crate::driver) fn set_waker(&self, cx: &Context<'_>) {
        self.waker.set(Some(cx.waker().clone()));
    }

    /// Ready when the client has reset the stream or left. Needed only while nothing is read:
    /// reading reports a reset too.
    pub(in crate::driver) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.sender.borrow_mut() {
            ResponseSender::NotStarted(respond) => respond.poll_reset(cx).map(|_| ()),
            ResponseSender::Started(stream) => stream.poll_reset(cx).map(|_| ()),
        }
    }
}

/// Compresses a message, unless it is large.
#[cold]
fn compressed(payload: Payload) -> Payload {
    match compression::compress(payload.parts().into_iter()) {
        Some(message) => message.into(),
        None => payload,
    }
}
