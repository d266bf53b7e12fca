//! Relays one direction of a stream from a receiver to a sender, with back-pressure.
//!
//! The flow-control window of the receiver opens only by the bytes that the sender has taken.
//! Therefore a slow reader makes the writer wait, and at most one window is buffered here (P2). The
//! last bytes carry END_STREAM if the end is known, and a half-close stays a half-close (P4).

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use crate::limits;
use crate::wire::frame::{FrameError, Scanner};

/// End of the received bytes. The caller ends the sending side.
#[derive(Debug)]
pub enum PumpEnd {
    /// END_STREAM has been sent with the last bytes.
    EndStreamSent,
    /// The bytes ended without trailers. END_STREAM is still to be sent.
    NoTrailers,
    /// These trailers are still to be sent.
    Trailers(HeaderMap),
}

/// Reason why a pump stopped before the end.
#[derive(Debug)]
pub enum PumpError {
    /// The receiving stream failed.
    Receive(h2::Error),
    /// The sending stream is closed. Its own response or reset has the reason.
    SendClosed,
    /// The head of a message announces more bytes than the limit.
    TooLarge {
        /// Length of the message in bytes, from its head.
        len: u64,
        /// Limit in bytes.
        max: u64,
    },
}

/// State of one direction of a relayed stream.
#[derive(Debug)]
pub struct Pump {
    pending: Bytes,
    /// Bytes sent so far.
    forwarded: usize,
    /// Messages that have started: their first byte was received.
    messages: u64,
    /// Reads message heads to enforce the size limit. `None` after bytes that are not gRPC: the
    /// receiver has to reject them (P1).
    scanner: Option<Scanner>,
    waits_for_reader: bool,
}

impl Pump {
    /// Creates a pump for messages of at most `max` bytes.
    pub fn new(max: u64) -> Pump {
        Pump {
            pending: Bytes::new(),
            forwarded: 0,
            messages: 0,
            scanner: Some(Scanner::new(max)),
            waits_for_reader: false,
        }
    }

    /// Reports whether the last poll ended because the reader does not read.
    pub fn waits_for_reader(&self) -> bool {
        self.waits_for_reader
    }

    /// Returns the bytes sent so far.
    pub fn forwarded(&self) -> usize {
        self.forwarded
    }

    /// Returns the number of messages that have started. Counting stops after bytes that are not
    /// gRPC.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns the bytes that are received and not sent yet.
    pub fn unsent(&self) -> usize {
        self.pending.len()
    }

    /// Checks bytes that were received outside this pump against the message limit.
    ///
    /// # Errors
    /// [`PumpError::TooLarge`].
    pub fn scan(&mut self, chunk: &[u8]) -> Result<(), PumpError> {
        let Some(scanner) = &mut self.scanner else {
            return Ok(());
        };
        match scanner.feed(chunk) {
            Ok(begun) => {
                self.messages += u64::from(begun);
                Ok(())
            }
            Err(FrameError::TooLarge { len, max }) => Err(PumpError::TooLarge { len, max }),
            Err(FrameError::BadFlag(_) | FrameError::Truncated) => {
                self.scanner = None;
                Ok(())
            }
        }
    }

    /// Moves bytes until one side is pending. Calls `on_chunk` with every received chunk before it
    /// is sent, and with whether the chunk starts with a message.
    pub fn poll<B: Buf + From<Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<B>,
        mut on_chunk: impl FnMut(&Bytes, bool),
    ) -> Poll<Result<PumpEnd, PumpError>> {
        loop {
            while !self.pending.is_empty() {
                let n = ready!(self.poll_send(cx, to, from.is_end_stream()))?;
                // An error means that the stream has ended, which the next poll_data reports.
                let _ = from.flow_control().release_capacity(n);
                if self.pending.is_empty() && from.is_end_stream() {
                    return Poll::Ready(Ok(PumpEnd::EndStreamSent));
                }
            }
            match ready!(from.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    let starts_message = self.scanner.as_ref().is_some_and(Scanner::at_boundary);
                    on_chunk(&chunk, starts_message);
                    self.scan(&chunk)?;
                    self.pending = chunk;
                }
                Some(Err(e)) => return Poll::Ready(Err(PumpError::Receive(e))),
                None => {
                    return Poll::Ready(match ready!(from.poll_trailers(cx)) {
                        Ok(Some(trailers)) => Ok(PumpEnd::Trailers(trailers)),
                        Ok(None) => Ok(PumpEnd::NoTrailers),
                        Err(e) => Err(PumpError::Receive(e)),
                    });
                }
            }
        }
    }

    /// Takes a chunk that was received outside this pump. [`Pump::poll_offered`] sends it. The
    /// previous chunk must have been sent.
    pub fn offer(&mut self, chunk: Bytes) {
        debug_assert!(self.pending.is_empty());
        self.pending = chunk;
    }

    /// Sends the offered chunk, with END_STREAM if it is the `last` one.
    pub fn poll_offered<B: Buf + From<Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<B>,
        last: bool,
    ) -> Poll<Result<(), PumpError>> {
        while !self.pending.is_empty() {
            ready!(self.poll_send(cx, to, last))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends as many pending bytes as there is capacity for, and returns their number.
    fn poll_send<B: Buf + From<Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<B>,
        last: bool,
    ) -> Poll<Result<usize, PumpError>> {
        let n = ready!(self.poll_capacity(cx, to))?;
        let end = last && n == self.pending.len();
        let chunk = self.pending.split_to(n);
        to.send_data(chunk.into(), end)
            .map_err(|_| PumpError::SendClosed)?;
        self.forwarded = self.forwarded.saturating_add(n);
        Poll::Ready(Ok(n))
    }

    /// Returns how many of the pending bytes can be sent now.
    fn poll_capacity<B: Buf>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<B>,
    ) -> Poll<Result<usize, PumpError>> {
        self.waits_for_reader = false;
        let len = self.pending.len();
        if self.forwarded.saturating_add(len) <= limits::FREE_SEND_BYTES {
            return Poll::Ready(Ok(len));
        }
        to.reserve_capacity(len);
        loop {
            let capacity = to.capacity();
            if capacity > 0 {
                return Poll::Ready(Ok(capacity.min(len)));
            }
            match to.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(PumpError::SendClosed)),
                Poll::Pending => {
                    self.waits_for_reader = true;
                    return Poll::Pending;
                }
            }
        }
    }
}
