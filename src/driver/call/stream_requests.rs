//! Reader of the request messages of a client stream that shares upstream work, and the reasons why
//! such a stream ends.

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
use crate::wire::compression::Encoding;
use crate::wire::frame::{FrameError, Reader};
use crate::wire::status::{Code, Status};

/// Reason why a client stream ends.
pub(in crate::driver) enum StreamEnd {
    /// The client has reset the stream or closed the connection.
    ClientGone,
    /// The proxy ends the stream with this status.
    Status(Status),
}

/// Request side of a client stream.
///
/// The reader releases flow-control window for the bytes of complete messages. The bytes of an
/// incomplete message count against the windows of its stream and connection. These windows
/// therefore bound all messages that a client starts and does not finish (S1). A message may exceed
/// half of a window; the excess bytes of a worker are bounded by [`limits::LARGE_REQUEST_BYTES`].
pub(in crate::driver) struct RequestReader {
    body: RecvStream,
    messages: MessageReader,
    deadline: Timer,
    half_closed: bool,
    /// Bytes received for which the flow-control window is not released yet.
    unreleased: usize,
    /// Bytes by which the incomplete message exceeds half a window.
    budget: MessageBudget,
}

/// Next input of a client stream.
pub(in crate::driver) enum StreamInput {
    /// Payload of a message, which may share the buffer that it was read into.
    Message(Bytes),
    /// The client has half-closed the stream. The responses continue (P4).
    HalfClosed,
}

impl RequestReader {
    /// Creates the reader of a call. `messages` contains the bytes received so far.
    pub(in crate::driver) fn new(
        ctx: &WorkerContext,
        body: RecvStream,
        messages: MessageReader,
        deadline: Timer,
    ) -> RequestReader {
        let budget = MessageBudget::new(&ctx.large_requests);
        RequestReader {
            body,
            messages,
            deadline,
            half_closed: false,
            unreleased: 0,
            budget,
        }
    }

    /// Polls for the next message. Reports the half-close once.
    ///
    /// If `wanted` is false, the reader reads nothing, so that HTTP/2 flow control stops the client
    /// (P2). In that case, and after the half-close, only a reset ends the stream.
    ///
    /// # Errors
    /// Returns the reason why the stream ends: a malformed or too large message, a truncated
    /// message, too many large messages (S1), or a reset.
    pub(in crate::driver) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &WorkerContext,
        stream: &ClientStream,
        wanted: bool,
    ) -> Poll<Result<StreamInput, StreamEnd>> {
        if self.half_closed || !wanted {
            self.messages.settle();
            stream.set_waker(cx);
            return stream.poll_reset(cx).map(|()| Err(StreamEnd::ClientGone));
        }
        loop {
            match self.messages.next(ctx) {
                Ok(Some(message)) => {
                    stream.message_received(ctx.counters());
                    return Poll::Ready(Ok(StreamInput::Message(message)));
                }
                Ok(None) => {}
                Err(status) => return Poll::Ready(Err(StreamEnd::Status(status))),
            }
            if let Err(status) = self.release_window(ctx) {
                return Poll::Ready(Err(StreamEnd::Status(status)));
            }
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.unreleased += chunk.len();
                    stream.received(&chunk);
                    self.messages.push(chunk);
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(StreamEnd::ClientGone)),
                Poll::Ready(None) if self.messages.buffered() > 0 => {
                    // Status of etcd for a truncated message.
                    let status = Status::new(Code::Internal, "unexpected EOF");
                    return Poll::Ready(Err(StreamEnd::Status(status)));
                }
                Poll::Ready(None) => {
                    self.half_closed = true;
                    return Poll::Ready(Ok(StreamInput::HalfClosed));
                }
                Poll::Pending => {
                    stream.set_waker(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Releases the window of all complete messages; the caller has consumed them.
    fn release_window(&mut self, ctx: &WorkerContext) -> Result<(), Status> {
        let buffered = self.messages.buffered();
        let excess = buffered.saturating_sub(limits::STREAM_WINDOW as usize / 2);
        self.budget.set(excess);
        if self.budget.worker_total() > limits::LARGE_REQUEST_BYTES {
            ctx.counters().limit_hit(Limit::LargeRequests);
            return Err(reply::too_many_large_requests());
        }
        let retained = (buffered - excess).min(self.unreleased);
        let released = self.unreleased - retained;
        if released > 0 {
            self.unreleased = retained;
            // An error means that the stream is closed. The next poll reports that.
            let _ = self.body.flow_control().release_capacity(released);
        }
        Ok(())
    }

    /// Ready when the client deadline passes or the process shuts down (S2, P3).
    pub(in crate::driver) fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &WorkerContext,
    ) -> Poll<StreamEnd> {
        if ctx.drain.has_begun() {
            return Poll::Ready(StreamEnd::Status(reply::shutting_down()));
        }
        let ended = self.deadline.poll(cx);
        ended.map(|()| StreamEnd::Status(reply::deadline_exceeded()))
    }
}

/// Decoder of complete request messages.
pub(in crate::driver) struct MessageReader {
    reader: Reader,
    /// Maximum size of a message in bytes, compressed and decompressed.
    max: u64,
    encoding: Encoding,
}

impl MessageReader {
    /// Creates an empty decoder. `max` is the largest message in bytes; messages may be compressed
    /// with `encoding`.
    pub(in crate::driver) fn new(max: u64, encoding: Encoding) -> MessageReader {
        MessageReader {
            reader: Reader::new(max),
            max,
            encoding,
        }
    }

    /// Returns the bytes buffered of messages that are incomplete or not consumed.
    fn buffered(&self) -> usize {
        self.reader.buffered()
    }

    /// Prepares for a long pause: buffered bytes no longer pin the buffer that they were read
    /// into.
    fn settle(&mut self) {
        self.reader.compact();
    }

    /// Appends received bytes.
    pub(in crate::driver) fn push(&mut self, chunk: Bytes) {
        self.reader.push(chunk);
    }

    /// Returns the decompressed payload of the next complete message, if there is one.
    ///
    /// # Errors
    /// Returns a status if the message is too large, cannot be decompressed, or has a malformed
    /// frame.
    pub(in crate::driver) fn next(&mut self, ctx: &WorkerContext) -> Result<Option<Bytes>, Status> {
        let message = match self.reader.next() {
            Ok(message) => message,
            Err(FrameError::TooLarge { len, max }) => {
                ctx.counters().limit_hit(Limit::SendBytes);
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
        let payload = self.encoding.decode(message, self.max);
        let payload = payload.map_err(|error| {
            if error.is_too_large() {
                ctx.counters().limit_hit(Limit::SendBytes);
            }
            error.status()
        })?;
        Ok(Some(payload))
    }
}

/// Returns the status for a payload that cannot be decoded; `noun` names the message.
pub(in crate::driver) fn malformed(noun: &str, error: &prost::DecodeError) -> Status {
    let text = format!("etcd-edge: malformed {noun}: {error}");
    Status::new(Code::InvalidArgument, text)
}

impl StreamEnd {
    /// Ends the client stream and returns its status code.
    pub(in crate::driver) fn finish(self, stream: &ClientStream) -> Code {
        match self {
            StreamEnd::ClientGone => Code::Cancelled,
            StreamEnd::Status(status) => {
                stream.end(&status);
                status.code
            }
        }
    }
}
