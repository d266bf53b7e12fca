//! Key translation of one direction of a relayed stream (N1).
//!
//! A message passes only after all of it has arrived and its keys have been translated. The bytes
//! of incomplete messages are bounded on the worker (S1).

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::state::message_budget::{ConnectionBudget, MessageBudget};
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::pump::PumpError;
use crate::wire::compression::Encoding;
use crate::wire::frame::FrameError;
use crate::wire::method::Method;
use crate::wire::namespace::{StreamTranslationError, StreamTranslator};
use crate::wire::status::Status;

/// Translation of the messages of one direction.
pub(super) struct Translation {
    stream: StreamTranslator,
    /// Translated bytes that are not sent yet.
    out: VecDeque<Bytes>,
    /// Bytes in `out`.
    unsent: usize,
    /// Messages translated so far.
    messages: u64,
    direction: Direction,
}

/// Direction of a translation, with its budget for incomplete messages.
enum Direction {
    /// To etcd: adds the namespace prefix to keys.
    Request(ConnectionBudget),
    /// To the client: removes the namespace prefix from keys.
    Response(MessageBudget),
}

/// Reason why a message does not pass.
pub(super) enum TranslationError {
    /// The message exceeds the maximum of its direction (P6).
    TooLarge { len: u64, max: u64 },
    /// The call ends with this status.
    Refused(Status),
}

impl Translation {
    /// Creates the translation of the requests of a call. Returns `None` if there is no namespace,
    /// or the requests contain no keys.
    pub(super) fn of_requests(call: &Call) -> Option<Box<Translation>> {
        let policy = call.ctx.process.namespace_policy()?;
        let stream = policy.request_translation(call.method, call.ctx.max.send)?;
        // etcd refuses a call with another encoding. Until then, no message of it is decoded.
        let encoding = Encoding::from_headers(&call.head.headers).unwrap_or_default();
        let stream = stream.with_encoding(encoding);
        let budget = ConnectionBudget::new(&call.connection, &call.ctx.large_requests);
        Some(Translation::new(stream, Direction::Request(budget)))
    }

    /// Creates the translation of the responses of a method. Returns `None` if there is no
    /// namespace, or the responses contain no keys.
    pub(super) fn of_responses(
        ctx: &WorkerContext,
        method: Option<&Method>,
    ) -> Option<Box<Translation>> {
        let policy = ctx.process.namespace_policy()?;
        // The only compression of etcd.
        let stream = policy
            .response_translation(method, ctx.max.recv)?
            .with_encoding(Encoding::Gzip);
        let budget = MessageBudget::new(&ctx.large_responses);
        Some(Translation::new(stream, Direction::Response(budget)))
    }

    fn new(stream: StreamTranslator, direction: Direction) -> Box<Translation> {
        Box::new(Translation {
            stream,
            out: VecDeque::new(),
            unsent: 0,
            messages: 0,
            direction,
        })
    }

    /// Returns the number of messages translated so far.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns the number of translated bytes that [`Translation::next`] has not returned.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Returns whether a message has arrived partly.
    pub(super) fn is_inside_message(&self) -> bool {
        self.stream.buffered() > 0
    }

    /// Returns whether all received bytes have been returned by [`Translation::next`].
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty() && !self.is_inside_message()
    }

    /// Resets the translation for another attempt.
    pub(super) fn rewind(&mut self) {
        self.stream.clear();
        self.out.clear();
        self.unsent = 0;
        self.messages = 0;
        self.set_budget(0);
    }

    /// Adds received bytes.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.stream.push(chunk);
    }

    /// Receives the next chunk and adds it. Calls `on_chunk` first, also with whether the chunk
    /// starts a message. Returns `false` at the end of the data.
    ///
    /// # Errors
    ///
    /// The stream failed.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        mut on_chunk: impl FnMut(&Bytes, bool),
    ) -> Poll<Result<bool, PumpError>> {
        let Some(received) = ready!(from.poll_data(cx)) else {
            return Poll::Ready(Ok(false));
        };
        let chunk = received.map_err(PumpError::Receive)?;
        // An error means that the stream is closed. The next poll reports that.
        let _ = from.flow_control().release_capacity(chunk.len());
        on_chunk(&chunk, !self.is_inside_message());
        self.push(chunk);
        Poll::Ready(Ok(true))
    }

    /// Returns the next translated piece, if a message is complete.
    ///
    /// # Errors
    ///
    /// The message must not pass, or the worker buffers too many bytes of incomplete messages.
    pub(super) fn next(&mut self, ctx: &WorkerContext) -> Result<Option<Bytes>, TranslationError> {
        while self.out.is_empty() {
            match self.stream.next() {
                Ok(Some(pieces)) => {
                    self.messages += 1;
                    self.unsent = pieces.iter().map(Bytes::len).sum();
                    self.out.extend(pieces);
                }
                Ok(None) => break,
                Err(StreamTranslationError::Frame(FrameError::TooLarge { len, max })) => {
                    return Err(TranslationError::TooLarge { len, max });
                }
                Err(error) => {
                    if matches!(&error, StreamTranslationError::Compression(error) if error.is_too_large())
                        && matches!(self.direction, Direction::Request(_))
                    {
                        ctx.counters().limit_hit(Limit::SendBytes);
                    }
                    let status = error.status(self.stream.message_type());
                    return Err(TranslationError::Refused(status));
                }
            }
        }
        self.check_budget(ctx)?;
        let piece = self.out.pop_front();
        self.unsent -= piece.as_ref().map_or(0, Bytes::len);
        Ok(piece)
    }

    /// Counts the buffered bytes. Fails if they exceed the bound of the direction.
    fn check_budget(&mut self, ctx: &WorkerContext) -> Result<(), TranslationError> {
        let incomplete = self.stream.buffered();
        self.set_budget(match &self.direction {
            // A compressed request uses more memory than the window that its client has spent.
            Direction::Request(_) if self.stream.encoding() == Encoding::Gzip => {
                incomplete + self.unsent
            }
            Direction::Request(_) => incomplete,
            Direction::Response(_) => {
                (incomplete + self.unsent).saturating_sub(limits::RESPONSE_BUFFER_BYTES)
            }
        });
        let (limit, status) = match &self.direction {
            Direction::Request(budget) if budget.is_exceeded() => {
                (Limit::LargeRequests, reply::too_many_large_requests())
            }
            Direction::Response(budget) if budget.worker_total() > limits::LARGE_RESPONSE_BYTES => {
                (Limit::LargeResponses, reply::too_many_large_responses())
            }
            _ => return Ok(()),
        };
        ctx.counters().limit_hit(limit);
        Err(TranslationError::Refused(status))
    }

    fn set_budget(&mut self, bytes: usize) {
        match &mut self.direction {
            Direction::Request(budget) => budget.set(bytes),
            Direction::Response(budget) => budget.set(bytes),
        }
    }
}
