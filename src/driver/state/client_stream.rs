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
    to: RefCell<To>,
    account: Rc<StreamQueue>,
    session: Session,
    peer: Rc<ClientConnection>,
    /// The place of its method in tables.
    method: Option<usize>,
    /// It asked to be told when there is no leader (W12).
    wants_leader: bool,
    /// What is noted of the call.
    record: Option<Rc<LoggedCall>>,
    /// How it was ended, if it was: the task that reads it is to go.
    ended: Cell<Option<Code>>,
    /// Of the task that reads it.
    waker: Cell<Option<Waker>>,
}

/// Where its messages go. As at etcd the answer begins with the first of them: a stream that ends
/// without any has its status in the head.
enum To {
    Silent(SendResponse<Payload>),
    Begun(SendStream<Payload>),
}

impl To {
    /// Begins the answer if it has not begun; `None` when the client is gone.
    fn begun(&mut self) -> Option<&mut SendStream<Payload>> {
        if let To::Silent(respond) = self {
            let mut head = Response::new(());
            head.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            *self = To::Begun(respond.send_response(head, false).ok()?);
        }
        match self {
            To::Begun(stream) => Some(stream),
            To::Silent(_) => None,
        }
    }
}

/// Room of a new stream of a connection that has so many already: all together they stay near
/// [`limits::MAX_STALLED_BYTES`].
pub(in crate::driver) fn room(streams: usize) -> usize {
    if streams < limits::ROOMY_STREAMS {
        limits::STREAM_ROOM
    } else {
        limits::FREE_SEND_BYTES
    }
}

impl ClientStream {
    /// One that has been sent nothing.
    pub(in crate::driver) fn new(
        respond: SendResponse<Payload>,
        account: Rc<StreamQueue>,
        session: Session,
        peer: Rc<ClientConnection>,
        method: Option<usize>,
        wants_leader: bool,
        record: Option<Rc<LoggedCall>>,
    ) -> ClientStream {
        ClientStream {
            to: RefCell::new(To::Silent(respond)),
            account,
            session,
            peer,
            method,
            wants_leader,
            record,
            ended: Cell::new(None),
            waker: Cell::new(None),
        }
    }

    /// Whose it is.
    pub(in crate::driver) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether it asked to be told when there is no leader.
    pub(in crate::driver) fn wants_leader(&self) -> bool {
        self.wants_leader
    }

    /// Bytes of the client's.
    pub(in crate::driver) fn received(&self, chunk: &[u8]) {
        if let Some(record) = &self.record {
            record.received(chunk);
        }
    }

    /// A message has come.
    pub(in crate::driver) fn heard(&self, count: &WorkerMetrics) {
        if let Some(method) = self.method {
            count.calls[method].received.inc();
        }
    }

    /// Bytes that have not left.
    pub(in crate::driver) fn queued(&self) -> usize {
        self.account.queued()
    }

    /// Sends one message, which shows no more of the store than is known. What all streams of a connection keep together is bounded (S1): false when it
    /// is too much, and the stream is reset.
    #[must_use]
    pub(in crate::driver) fn send(
        &self,
        known: &StoreRevision,
        count: &WorkerMetrics,
        payload: Payload,
    ) -> bool {
        self.peer.show(known, known.revision());
        if let Some(record) = &self.record {
            record.sent_message(payload.remaining());
        }
        let payload = payload.counted(&self.account);
        let mut to = self.to.borrow_mut();
        let Some(stream) = to.begun() else {
            // The client is gone, which its task finds out.
            return true;
        };
        // The same.
        let _ = stream.send_data(payload, false);
        if let Some(method) = self.method {
            count.calls[method].sent.inc();
        }
        if self.account.total() <= limits::MAX_STALLED_BYTES {
            return true;
        }
        stream.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        self.ended.set(Some(Code::ResourceExhausted));
        self.wake();
        false
    }

    /// Ends it.
    pub(in crate::driver) fn end(&self, status: &Status) {
        let code = match &mut *self.to.borrow_mut() {
            To::Silent(respond) => reply::trailers_only(respond, status),
            To::Begun(stream) => reply::trailers(stream, status),
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
    pub(in crate::driver) fn waits(&self, cx: &Context<'_>) {
        self.waker.set(Some(cx.waker().clone()));
    }

    /// Ready when the client has reset it, or is gone. Only where it is not read: reading tells too.
    pub(in crate::driver) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.to.borrow_mut() {
            To::Silent(respond) => respond.poll_reset(cx).map(|_| ()),
            To::Begun(stream) => stream.poll_reset(cx).map(|_| ()),
        }
    }
}
