//! What a client asks on a stream that shares what goes to etcd, message by message, and why the
//! stream is over when it is.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;

use crate::driver::WorkerContext;
use crate::driver::state::client_stream::ClientStream;
use crate::driver::state::message_budget::MessageBudget;
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::timers::Timer;
use crate::wire::frame::{FrameError, Reader};
use crate::wire::status::{Code, Status};

/// Why a stream is over.
pub(in crate::driver) enum Over {
    /// The client is gone.
    Gone,
    /// It is told so.
    Status(Status),
}

/// The reading side of a client's stream.
///
/// The window is given back for what has been read as messages: what is kept of one that is not complete
/// counts against the windows of its stream and connection, so that all that a client begins and does
/// not finish is bounded by them (S1). A message that is larger than half a window is let in beyond it,
/// [`limits::LARGE_REQUEST_BYTES`] of them on a worker.
pub(in crate::driver) struct Requests {
    body: RecvStream,
    messages: Messages,
    deadline: Timer,
    half_closed: bool,
    /// Received, and not given back.
    owed: usize,
    /// Of a message that is larger than half a window.
    large: MessageBudget,
}

/// What comes next on a stream.
pub(in crate::driver) enum Next {
    /// A message's payload; it may share the buffer it came in.
    Message(Bytes),
    /// Nothing more: half-close, which is no end (P4).
    HalfClosed,
}

impl Requests {
    /// Of a call of which these bytes have been received.
    pub(in crate::driver) fn new(
        ctx: &WorkerContext,
        body: RecvStream,
        messages: Messages,
        deadline: Timer,
    ) -> Requests {
        let large = MessageBudget::new(&ctx.large_requests);
        Requests {
            body,
            messages,
            deadline,
            half_closed: false,
            owed: 0,
            large,
        }
    }

    /// The next message while `takes` says that one is wanted; half-close is told once. Whoever has
    /// enough is read no further, so that HTTP/2 holds its client back (P2): then, and after the
    /// half-close, only a reset ends the stream.
    pub(in crate::driver) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &WorkerContext,
        stream: &ClientStream,
        takes: bool,
    ) -> Poll<Result<Next, Over>> {
        if self.half_closed || !takes {
            self.messages.settle();
            stream.waits(cx);
            return stream.poll_reset(cx).map(|()| Err(Over::Gone));
        }
        loop {
            match self.messages.next(ctx) {
                Ok(Some(message)) => {
                    stream.heard(ctx.count());
                    return Poll::Ready(Ok(Next::Message(message)));
                }
                Ok(None) => {}
                Err(status) => return Poll::Ready(Err(Over::Status(status))),
            }
            if let Err(status) = self.give_back(ctx) {
                return Poll::Ready(Err(Over::Status(status)));
            }
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.owed += chunk.len();
                    stream.received(&chunk);
                    self.messages.push(chunk);
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Over::Gone)),
                Poll::Ready(None) if self.messages.held() > 0 => {
                    // As etcd says it.
                    let status = Status::new(Code::Internal, "unexpected EOF");
                    return Poll::Ready(Err(Over::Status(status)));
                }
                Poll::Ready(None) => {
                    self.half_closed = true;
                    return Poll::Ready(Ok(Next::HalfClosed));
                }
                Poll::Pending => {
                    stream.waits(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// All whole messages have been taken: gives back what they were.
    fn give_back(&mut self, ctx: &WorkerContext) -> Result<(), Status> {
        let held = self.messages.held();
        let large = held.saturating_sub(limits::STREAM_WINDOW as usize / 2);
        self.large.set(large);
        if self.large.all() > limits::LARGE_REQUEST_BYTES {
            ctx.count().hit(Limit::LargeRequests);
            return Err(reply::too_many_large());
        }
        let keeps = (held - large).min(self.owed);
        let back = self.owed - keeps;
        if back > 0 {
            self.owed = keeps;
            // An error means that the stream is gone, which the next poll says.
            let _ = self.body.flow_control().release_capacity(back);
        }
        Ok(())
    }

    /// Ready when the client's deadline is over, or the process is to end (S2, P3).
    pub(in crate::driver) fn poll_over(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &WorkerContext,
    ) -> Poll<Over> {
        if ctx.drain.has_begun() {
            return Poll::Ready(Over::Status(reply::shutting_down()));
        }
        let over = self.deadline.poll(cx);
        over.map(|()| Over::Status(reply::deadline_exceeded()))
    }
}

/// Whole messages of a client, judged.
pub(in crate::driver) struct Messages {
    reader: Reader,
    /// Of what, for the texts of errors.
    what: &'static str,
}

impl Messages {
    /// None yet; of a call whose requests are called `what`, and have at most so many bytes.
    pub(in crate::driver) fn new(max: u64, what: &'static str) -> Messages {
        Messages {
            reader: Reader::new(max),
            what,
        }
    }

    /// Bytes that are here and are no whole message yet, or were not taken.
    fn held(&self) -> usize {
        self.reader.buffered()
    }

    /// Nothing is taken for a while: what is here keeps no buffer alive that it came in.
    fn settle(&mut self) {
        self.reader.settle();
    }

    /// More of the stream.
    pub(in crate::driver) fn push(&mut self, chunk: Bytes) {
        self.reader.push(chunk);
    }

    /// The payload of the next message that is whole.
    pub(in crate::driver) fn next(&mut self, ctx: &WorkerContext) -> Result<Option<Bytes>, Status> {
        let message = match self.reader.next() {
            Ok(message) => message,
            Err(FrameError::TooLarge { len, max }) => {
                ctx.count().hit(Limit::SendBytes);
                return Err(reply::send_too_large(len, max));
            }
            Err(error) => {
                let text = format!("etcd-edge: malformed gRPC frame: {error}");
                return Err(Status::new(Code::Internal, text));
            }
        };
        let Some(message) = message else {
            return Ok(None);
        };
        if message.compressed {
            let text = format!("etcd-edge: compressed {}s are not supported", self.what);
            return Err(Status::new(Code::Unimplemented, text));
        }
        Ok(Some(message.payload))
    }
}

/// What is told of a message that is none.
pub(in crate::driver) fn malformed(what: &str, error: &prost::DecodeError) -> Status {
    let text = format!("etcd-edge: malformed {what}: {error}");
    Status::new(Code::InvalidArgument, text)
}

impl Over {
    /// Ends the client's stream accordingly.
    pub(in crate::driver) fn conclude(self, stream: &ClientStream) -> Code {
        match self {
            Over::Gone => Code::Cancelled,
            Over::Status(status) => {
                stream.end(&status);
                status.code
            }
        }
    }
}
