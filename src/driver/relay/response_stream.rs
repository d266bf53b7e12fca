//! The direction towards the client, with the bounds on clients that do not read (S1).

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::time::Instant;

use crate::call_log::open_call::LoggedCall;
use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::relay::response_observer::ResponseObserver;
use crate::driver::state::connection::ClientConnection;
use crate::driver::state::message_budget::MessageBudget;
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::net::pump::{End, Pump, PumpError};
use crate::net::timers::Timer;
use crate::wire::frame::FrameError;
use crate::wire::method::Method;
use crate::wire::namespace::{Stream, StreamError};
use crate::wire::status::Status;

/// Why the direction ended early.
pub(in crate::driver) enum Stopped {
    /// The relay itself failed.
    Pump(PumpError),
    /// The client met a bound.
    Limit,
    /// etcd's answer may not be shown.
    Refused(Status),
}

/// A pump whose reader is watched.
pub(in crate::driver) struct ResponseStream {
    pump: Pump,
    ctx: Rc<WorkerContext>,
    peer: Rc<ClientConnection>,
    /// Unary answers must be read within a time; streams may wait for ever.
    timed: bool,
    lesson: ResponseObserver,
    /// Where a call may have several messages: whose they are, and those that have been counted.
    counted: Option<(usize, u64)>,
    stall: Option<Stall>,
    /// What is noted of the call.
    record: Option<Rc<LoggedCall>>,
    /// Of a method whose keys a namespace changes.
    translation: Option<Box<Translation>>,
}

/// Messages on their way out of the namespace.
struct Translation {
    stream: Stream,
    /// Translated and not sent.
    out: VecDeque<Bytes>,
    /// Bytes in `out`.
    waiting: usize,
    /// How many have been.
    messages: u64,
    large: MessageBudget,
}

impl ResponseStream {
    /// For a call; with `timed` its answer must be read within a time.
    pub(in crate::driver) fn new(
        call: &Call,
        timed: bool,
        lesson: ResponseObserver,
    ) -> ResponseStream {
        let pump = Pump::new(call.ctx.max.recv);
        ResponseStream {
            pump,
            ctx: call.ctx.clone(),
            peer: call.peer.clone(),
            timed,
            lesson,
            counted: None,
            stall: None,
            record: call.record.clone(),
            translation: None,
        }
    }

    /// Messages are counted, where the call may have several.
    pub(in crate::driver) fn counted(mut self, call: &Call) -> ResponseStream {
        self.counted = call.streamed().map(|method| (method, 0));
        self
    }

    /// What passes is translated first, where the method asks for it.
    pub(in crate::driver) fn translated(mut self, method: Option<&Method>) -> ResponseStream {
        let gate = self.ctx.shared.gate();
        let stream = gate.and_then(|gate| gate.answers(method, self.ctx.max.recv));
        self.translation = stream.map(|stream| {
            Box::new(Translation {
                stream,
                out: VecDeque::new(),
                waiting: 0,
                messages: 0,
                large: MessageBudget::new(&self.ctx.large_answers),
            })
        });
        self
    }

    /// Takes chunks that have arrived, for [`ResponseStream::poll`] to translate, if anything is translated.
    pub(in crate::driver) fn take(&mut self, chunks: &mut VecDeque<Bytes>) {
        if let Some(translation) = &mut self.translation {
            let arrived = chunks.drain(..);
            arrived.for_each(|chunk| translation.stream.push(chunk));
        }
    }

    /// What is learned from what passes.
    pub(in crate::driver) fn lesson(&self) -> &ResponseObserver {
        &self.lesson
    }

    /// Sends one chunk that is already here; `pinned` bytes wait here with it.
    pub(in crate::driver) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Payload>,
        pinned: usize,
    ) -> Poll<Result<(), Stopped>> {
        let polled = self.pump.poll_offered(cx, to, false);
        self.watched(cx, polled, || pinned)
    }

    /// The chunk for [`ResponseStream::poll_chunk`].
    pub(in crate::driver) fn offer(&mut self, chunk: Bytes) -> Result<(), PumpError> {
        self.pump.scan(&chunk)?;
        note(&self.record, &chunk);
        self.pump.offer(chunk);
        Ok(())
    }

    /// Relays until the end.
    pub(in crate::driver) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Payload>,
    ) -> Poll<Result<End, Stopped>> {
        let polled = self.poll_plain_or_translated(cx, from, to);
        self.count();
        polled
    }

    /// Counts messages of a stream that have come since.
    fn count(&mut self) {
        let Some((method, counted)) = &mut self.counted else {
            return;
        };
        let translated = self.translation.as_ref().map_or(0, |t| t.messages);
        let messages = self.pump.messages() + translated;
        let count = &self.ctx.count().calls[*method];
        count.sent.add((messages - *counted) as usize);
        *counted = messages;
    }

    fn poll_plain_or_translated(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Payload>,
    ) -> Poll<Result<End, Stopped>> {
        if let Some(mut translation) = self.translation.take() {
            let polled = self.poll_translated(cx, from, to, &mut translation);
            self.translation = Some(translation);
            return polled;
        }
        let (ctx, peer, lesson) = (&self.ctx, &self.peer, &self.lesson);
        let record = &self.record;
        let polled = self.pump.poll(cx, from, to, |chunk, begins| {
            if begins {
                lesson.see(ctx, peer, chunk);
            }
            note(record, chunk);
        });
        self.watched(cx, polled, || from.flow_control().used_capacity())
    }

    /// The same where messages are translated, each when it is whole.
    fn poll_translated(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Payload>,
        translation: &mut Translation,
    ) -> Poll<Result<End, Stopped>> {
        loop {
            let polled = self.pump.poll_offered(cx, to, false);
            // A large message is held whole, however well its client reads: what it is above this is
            // counted on the worker alone ([`limits::LARGE_ANSWER_BYTES`]).
            let waits = self.pump.unsent() + translation.waiting;
            let waits = waits.min(limits::MAX_STALLED_BYTES / 2);
            ready!(self.watched(cx, polled, || waits))?;
            if let Some(piece) = translation.next(&self.ctx)? {
                note(&self.record, &piece);
                self.pump.offer(piece);
                continue;
            }
            match ready!(from.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    // An error means that the stream is gone, which the next poll says.
                    let _ = from.flow_control().release_capacity(chunk.len());
                    if translation.stream.held() == 0 {
                        self.lesson.see(&self.ctx, &self.peer, &chunk);
                    }
                    translation.stream.push(chunk);
                }
                Some(Err(e)) => return Poll::Ready(Err(Stopped::Pump(PumpError::From(e)))),
                None => {
                    // What is no whole message is not shown; how the stream ends says why.
                    return Poll::Ready(match ready!(from.poll_trailers(cx)) {
                        Ok(Some(trailers)) => Ok(End::Trailers(trailers)),
                        Ok(None) => Ok(End::Bare),
                        Err(e) => Err(Stopped::Pump(PumpError::From(e))),
                    });
                }
            }
        }
    }

    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<Result<T, PumpError>>,
        pinned: impl FnMut() -> usize,
    ) -> Poll<Result<T, Stopped>> {
        match polled {
            Poll::Ready(result) => {
                self.stall = None;
                Poll::Ready(result.map_err(Stopped::Pump))
            }
            Poll::Pending if self.pump.waits_for_reader() => self.poll_stall(cx, pinned),
            Poll::Pending => {
                self.stall = None;
                Poll::Pending
            }
        }
    }

    fn poll_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut pinned: impl FnMut() -> usize,
    ) -> Poll<Result<T, Stopped>> {
        let passed = self.pump.passed();
        if self
            .stall
            .as_ref()
            .is_none_or(|stall| stall.passed != passed)
        {
            // The old one goes first, or it would be counted twice.
            self.stall = None;
            self.stall = Some(Stall::begin(&self.ctx, &self.peer, passed));
        }
        let Some(stall) = &mut self.stall else {
            return Poll::Pending;
        };
        loop {
            stall.count(pinned());
            let over = if self.peer.stalled_bytes.get() > limits::MAX_STALLED_BYTES {
                Some(Limit::StalledBytes)
            } else if self.timed && stall.began.elapsed() >= limits::STALLED_READER_TIME {
                Some(Limit::SlowReader)
            } else {
                None
            };
            if let Some(limit) = over {
                self.ctx.count().hit(limit);
                return Poll::Ready(Err(Stopped::Limit));
            }
            ready!(stall.look.poll(cx));
            stall.look = self
                .ctx
                .timers
                .at(Some(Instant::now() + limits::STALL_LOOK));
        }
    }
}

/// What goes out is noted, if the call is to be told of.
fn note(record: &Option<Rc<LoggedCall>>, chunk: &Bytes) {
    if let Some(record) = record {
        record.sent(chunk);
    }
}

impl Translation {
    /// The next piece that may be sent.
    fn next(&mut self, ctx: &WorkerContext) -> Result<Option<Bytes>, Stopped> {
        while self.out.is_empty() {
            match self.stream.next() {
                Ok(Some(pieces)) => {
                    self.messages += 1;
                    self.waiting = pieces.iter().map(Bytes::len).sum();
                    self.out.extend(pieces);
                }
                Ok(None) => break,
                Err(StreamError::Frame(FrameError::TooLarge { len, max })) => {
                    return Err(Stopped::Pump(PumpError::TooLarge { len, max }));
                }
                Err(error) => {
                    return Err(Stopped::Refused(error.status(self.stream.messages())));
                }
            }
        }
        let held = self.stream.held() + self.waiting;
        self.large.set(held.saturating_sub(limits::HOLD_BYTES));
        if self.large.all() > limits::LARGE_ANSWER_BYTES {
            ctx.count().hit(Limit::LargeResponses);
            return Err(Stopped::Refused(reply::too_many_large_answers()));
        }
        let piece = self.out.pop_front();
        self.waiting -= piece.as_ref().map_or(0, Bytes::len);
        Ok(piece)
    }
}

/// A time without progress. What waits here meanwhile is counted at the connection; it grows
/// without a word to us, hence the looks.
struct Stall {
    peer: Rc<ClientConnection>,
    passed: usize,
    began: Instant,
    bytes: usize,
    look: Timer,
}

impl Stall {
    fn begin(ctx: &WorkerContext, peer: &Rc<ClientConnection>, passed: usize) -> Stall {
        let began = Instant::now();
        let look = ctx.timers.at(Some(began + limits::STALL_LOOK));
        Stall {
            peer: peer.clone(),
            passed,
            began,
            bytes: 0,
            look,
        }
    }

    fn count(&mut self, bytes: usize) {
        let others = self.peer.stalled_bytes.get() - self.bytes;
        self.peer.stalled_bytes.set(others + bytes);
        self.bytes = bytes;
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.count(0);
    }
}
