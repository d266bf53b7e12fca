//! One direction of a relayed stream: bytes from a receiver to a sender, with back-pressure.
//!
//! The receiver's flow-control window is opened only by what the sender has taken, so a slow
//! reader makes the writer wait and at most one window lies here (P2). The last bytes carry
//! END_STREAM with them when it is known, and half-close stays half-close (P4).

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use crate::limits;
use crate::wire::frame::{FrameError, Scanner};

/// How the stream of bytes ended; the caller ends the other side.
#[derive(Debug)]
pub enum End {
    /// END_STREAM has been passed on with the last bytes.
    Passed,
    /// The bytes are over without trailers; END_STREAM is still to be passed.
    Bare,
    /// These trailers are still to be passed.
    Trailers(HeaderMap),
}

/// Why a pump stopped early.
#[derive(Debug)]
pub enum PumpError {
    /// The receiving side failed.
    From(h2::Error),
    /// The sending side is closed; its own answer or reset says why.
    To,
    /// A message's head announces more than the limit.
    TooLarge {
        /// Length of the message, from its head.
        len: u64,
        /// The limit.
        max: u64,
    },
}

/// State of one direction.
#[derive(Debug)]
pub struct Pump {
    pending: Bytes,
    /// Bytes passed so far.
    passed: usize,
    /// Messages that have begun.
    messages: u64,
    /// Follows message heads for the size limit; gone once the peer sends what is no gRPC, so
    /// that the receiver judges it (P1).
    scanner: Option<Scanner>,
    waits_for_reader: bool,
}

impl Pump {
    /// For messages of at most `max` bytes.
    pub fn new(max: u64) -> Pump {
        Pump {
            pending: Bytes::new(),
            passed: 0,
            messages: 0,
            scanner: Some(Scanner::new(max)),
            waits_for_reader: false,
        }
    }

    /// Whether the last poll ended because the reader does not read on.
    pub fn waits_for_reader(&self) -> bool {
        self.waits_for_reader
    }

    /// Bytes passed so far.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Messages that have begun in what was received; not known any more once it is no gRPC.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes received and not passed yet.
    pub fn unsent(&self) -> usize {
        self.pending.len()
    }

    /// Checks bytes that were received outside this pump against the message limit.
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

    /// Moves what can be moved. `seen` is shown every chunk that arrives, before it is passed, and
    /// told whether it begins with a message.
    pub fn poll<B: Buf + From<Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<B>,
        mut seen: impl FnMut(&Bytes, bool),
    ) -> Poll<Result<End, PumpError>> {
        loop {
            while !self.pending.is_empty() {
                let n = ready!(self.poll_send(cx, to, from.is_end_stream()))?;
                // An error means that the stream is gone, which the next poll_data says.
                let _ = from.flow_control().release_capacity(n);
                if self.pending.is_empty() && from.is_end_stream() {
                    return Poll::Ready(Ok(End::Passed));
                }
            }
            match ready!(from.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    let begins = self.scanner.as_ref().is_some_and(Scanner::at_boundary);
                    seen(&chunk, begins);
                    self.scan(&chunk)?;
                    self.pending = chunk;
                }
                Some(Err(e)) => return Poll::Ready(Err(PumpError::From(e))),
                None => {
                    return Poll::Ready(match ready!(from.poll_trailers(cx)) {
                        Ok(Some(trailers)) => Ok(End::Trailers(trailers)),
                        Ok(None) => Ok(End::Bare),
                        Err(e) => Err(PumpError::From(e)),
                    });
                }
            }
        }
    }

    /// Takes a chunk that was received outside this pump; [`Pump::poll_offered`] sends it.
    /// The one before must have left.
    pub fn offer(&mut self, chunk: Bytes) {
        debug_assert!(self.pending.is_empty());
        self.pending = chunk;
    }

    /// Sends the offered chunk; with `last`, END_STREAM goes with it.
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

    /// Sends as much of the pending bytes as there is room for; says how many.
    fn poll_send<B: Buf + From<Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<B>,
        last: bool,
    ) -> Poll<Result<usize, PumpError>> {
        let n = ready!(self.poll_room(cx, to))?;
        let end = last && n == self.pending.len();
        let chunk = self.pending.split_to(n);
        to.send_data(chunk.into(), end).map_err(|_| PumpError::To)?;
        self.passed = self.passed.saturating_add(n);
        Poll::Ready(Ok(n))
    }

    /// How many of the pending bytes may go now.
    fn poll_room<B: Buf>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<B>,
    ) -> Poll<Result<usize, PumpError>> {
        self.waits_for_reader = false;
        let len = self.pending.len();
        if self.passed.saturating_add(len) <= limits::FREE_SEND_BYTES {
            return Poll::Ready(Ok(len));
        }
        to.reserve_capacity(len);
        loop {
            let room = to.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(len)));
            }
            match to.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(PumpError::To)),
                Poll::Pending => {
                    self.waits_for_reader = true;
                    return Poll::Pending;
                }
            }
        }
    }
}
