//! A client's stream that shares what goes to etcd with others: what it is sent, and its end.
//!
//! One task reads what the client asks; what it is sent comes from wherever the answer arrives. What
//! has not left is counted, since nothing holds back those who send (S1).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Buf;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderValue, Response, header};

use crate::call_log::open_call::LoggedCall;
use crate::driver::state::connection::ClientConnection;
use crate::driver::state::identity::Session;
use crate::driver::state::reply;
use crate::driver::state::store_revision::StoreRevision;
use crate::limits;
use crate::metrics::WorkerMetrics;
use crate::net::payload::{Payload, StreamQueue};
use crate::wire::status::{Code, Status};

/// See the module.
pub(in crate::driver) struct ClientStream {
    sender: RefCell<ResponseSender>,
    queue: Rc<StreamQueue>,
    session: Session,
    connection: Rc<ClientConnection>,
    /// The place of its method in tables.
    method: Option<usize>,
    /// It asked to be told when there is no leader (W12).
    requires_leader: bool,
    /// What is noted of the call.
    log: Option<Rc<LoggedCall>>,
    /// How it was ended, if it was: the task that reads it is to go.
    ended: Cell<Option<Code>>,
    /// Of the task that reads it.
    waker: Cell<Option<Waker>>,
}

/// Where its messages go. As at etcd the answer begins with the first of them: a stream that ends
/// without any has its status in the head.
enum ResponseSender {
    NotStarted(SendResponse<Payload>),
    Started(SendStream<Payload>),
}

impl ResponseSender {
    /// Begins the answer if it has not begun; `None` when the client is gone.
    fn start(&mut self) -> Option<&mut SendStream<Payload>> {
        if let ResponseSender::NotStarted(respond) = self {
            let mut head = Response::new(());
            head.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            *self = ResponseSender::Started(respond.send_response(head, false).ok()?);
        }
        match self {
            ResponseSender::Started(stream) => Some(stream),
            ResponseSender::NotStarted(_) => None,
        }
    }
}

/// Room of a new stream of a connection that has so many already: all together they stay near
/// [`limits::MAX_STALLED_BYTES`].
pub(in crate::driver) fn send_capacity(streams: usize) -> usize {
    if streams < limits::FULL_CAPACITY_STREAMS {
        limits::STREAM_SEND_CAPACITY
    } else {
        limits::FREE_SEND_BYTES
    }
}

impl ClientStream {
    /// One that has been sent nothing.
    pub(in crate::driver) fn new(
        respond: SendResponse<Payload>,
        queue: Rc<StreamQueue>,
        session: Session,
        connection: Rc<ClientConnection>,
        method: Option<usize>,
        requires_leader: bool,
        log: Option<Rc<LoggedCall>>,
    ) -> ClientStream {
        ClientStream {
            sender: RefCell::new(ResponseSender::NotStarted(respond)),
            queue,
            session,
            connection,
            method,
            requires_leader,
            log,
            ended: Cell::new(None),
            waker: Cell::new(None),
        }
    }

    /// Whose it is.
    pub(in crate::driver) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether it asked to be told when there is no leader.
    pub(in crate::driver) fn requires_leader(&self) -> bool {
        self.requires_leader
    }

    /// Bytes of the client's.
    pub(in crate::driver) fn received(&self, chunk: &[u8]) {
        if let Some(log) = &self.log {
            log.received(chunk);
        }
    }

    /// A message has come.
    pub(in crate::driver) fn message_received(&self, counters: &WorkerMetrics) {
        if let Some(method) = self.method {
            counters.calls[method].received.inc();
        }
    }

    /// Bytes that have not left.
    pub(in crate::driver) fn queued(&self) -> usize {
        self.queue.queued()
    }

    /// Sends one message, which shows no more of the store than is known. What all streams of a connection keep together is bounded (S1): false when it
    /// is too much, and the stream is reset.
    #[must_use]
    pub(in crate::driver) fn send(
        &self,
        store_revision: &StoreRevision,
        counters: &WorkerMetrics,
        payload: Payload,
    ) -> bool {
        self.connection.raise_revision_floor(store_revision, store_revision.revision());
        if let Some(log) = &self.log {
            log.sent_message(payload.remaining());
        }
        let payload = payload.counted(&self.queue);
        let mut sender = self.sender.borrow_mut();
        let Some(stream) = sender.start() else {
            // The client is gone, which its task finds out.
            return true;
        };
        // The same.
        let _ = stream.send_data(payload, false);
        if let Some(method) = self.method {
            counters.calls[method].sent.inc();
        }
        if self.queue.total() <= limits::MAX_STALLED_BYTES {
            return true;
        }
        stream.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        self.ended.set(Some(Code::ResourceExhausted));
        self.wake();
        false
    }

    /// Ends it.
    pub(in crate::driver) fn end(&self, status: &Status) {
        let code = match &mut *self.sender.borrow_mut() {
            ResponseSender::NotStarted(respond) => reply::trailers_only(respond, status),
            ResponseSender::Started(stream) => reply::trailers(stream, status),
        };
        self.ended.set(Some(code));
        self.wake();
    }

    /// How it was ended, if it was.
    pub(in crate::driver) fn ended(&self) -> Option<Code> {
        self.ended.get()
    }

    /// Wakes the task that reads it.
    pub(in crate::driver) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The task that reads it waits.
    pub(in crate::driver) fn set_waker(&self, cx: &Context<'_>) {
        self.waker.set(Some(cx.waker().clone()));
    }

    /// Ready when the client has reset it, or is gone. Only where it is not read: reading tells too.
    pub(in crate::driver) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.sender.borrow_mut() {
            ResponseSender::NotStarted(respond) => respond.poll_reset(cx).map(|_| ()),
            ResponseSender::Started(stream) => stream.poll_reset(cx).map(|_| ()),
        }
    }
}
