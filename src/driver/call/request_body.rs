//! Reader of small request bodies, for drivers that need the whole request before they act.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use tokio::time::timeout;

use crate::driver::call::Call;
use crate::driver::call::chunk_buffer::ChunkBuffer;
use crate::driver::state::interrupt::{Interrupted, until_interrupted};
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::pump::{Pump, PumpError};
use crate::wire::status::{Code, Status};

/// Result of reading a request body.
pub(in crate::driver) enum RequestBody {
    /// The complete body.
    Complete(Vec<Bytes>),
    /// The first chunks of a body that exceeds [`limits::REQUEST_BUFFER_BYTES`]. Their flow-control
    /// window is released.
    Partial(Vec<Bytes>),
    /// The call has ended with this code.
    Ended(Code),
}

/// Reads the request body of a call, up to [`limits::REQUEST_BUFFER_BYTES`].
pub(in crate::driver) async fn read_request_body(call: &mut Call) -> RequestBody {
    let mut reader = BodyReader::new(call.ctx.max.send);
    let result = match poll_fn(|cx| Poll::Ready(reader.poll(cx, &mut call.body))).await {
        Poll::Ready(result) => result,
        Poll::Pending => Box::pin(read_slowly(call, &mut reader)).await,
    };
    if let Some(log) = &call.log {
        reader
            .buffer
            .chunks()
            .iter()
            .for_each(|c| log.count_received(c));
    }
    match result {
        Ok(()) => RequestBody::Complete(reader.buffer.into_chunks()),
        Err(BodyError::BufferFull) => RequestBody::Partial(reader.buffer.into_chunks()),
        Err(BodyError::TooLarge { len, max }) => {
            call.ctx.counters().limit_hit(Limit::SendBytes);
            let status = reply::send_too_large(len, max);
            RequestBody::Ended(reply::trailers_only(&mut call.respond, &status))
        }
        Err(BodyError::Refused(status)) => {
            RequestBody::Ended(reply::trailers_only(&mut call.respond, &status))
        }
        Err(BodyError::ClientGone) => RequestBody::Ended(Code::Cancelled),
    }
}

/// State of reading one body.
struct BodyReader {
    buffer: ChunkBuffer,
    /// Checks the message length; nothing is pumped.
    length_check: Pump,
}

enum BodyError {
    /// The body exceeds the buffer. The buffer contains the first chunks, and their window is
    /// released.
    BufferFull,
    /// The message exceeds `--max-send-bytes` (P6).
    TooLarge {
        len: u64,
        max: u64,
    },
    Refused(Status),
    ClientGone,
}

impl BodyReader {
    fn new(max: u64) -> BodyReader {
        BodyReader {
            buffer: ChunkBuffer::default(),
            length_check: Pump::new(max),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, body: &mut RecvStream) -> Poll<Result<(), BodyError>> {
        loop {
            if self.buffer.bytes() > limits::REQUEST_BUFFER_BYTES {
                // An error means that the stream is closed. The relay detects that.
                let _ = body.flow_control().release_capacity(self.buffer.bytes());
                return Poll::Ready(Err(BodyError::BufferFull));
            }
            match ready!(body.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    if let Err(PumpError::TooLarge { len, max }) = self.length_check.scan(&chunk) {
                        return Poll::Ready(Err(BodyError::TooLarge { len, max }));
                    }
                    self.buffer.push(chunk);
                }
                Some(Err(_)) => return Poll::Ready(Err(BodyError::ClientGone)),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Reads a body that has not arrived completely, within [`limits::REQUEST_TIME`].
async fn read_slowly(call: &mut Call, reader: &mut BodyReader) -> Result<(), BodyError> {
    let timer = call.deadline_timer();
    let Call { body, respond, .. } = call;
    let arrived = until_interrupted(timer, None, |cx| {
        if let Poll::Ready(result) = reader.poll(cx, body) {
            return Poll::Ready(Ok(result));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    });
    match timeout(limits::REQUEST_TIME, arrived).await {
        Ok(Ok(result)) => result,
        Ok(Err(Interrupted::Deadline)) => Err(BodyError::Refused(reply::deadline_exceeded())),
        Ok(Err(Interrupted::ClientGone | Interrupted::Drain)) => Err(BodyError::ClientGone),
        Err(_) => {
            call.ctx.counters().limit_hit(Limit::SlowRequest);
            Err(BodyError::Refused(reply::slow_request()))
        }
    }
}
