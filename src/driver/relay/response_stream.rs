//! Relay direction towards the client, with bounds on clients that do not read (S1).

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
use crate::driver::relay::translation::{Translation, TranslationError};
use crate::driver::state::connection::ClientConnection;
use crate::limits;
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::net::pump::{Pump, PumpEnd, PumpError};
use crate::net::timers::Timer;
use crate::wire::method::Method;
use crate::wire::status::Status;

/// Reason why the direction ended early.
pub(in crate::driver) enum ResponseStreamError {
    /// The pump failed.
    Pump(PumpError),
    /// The client exceeded a bound (S1).
    Limit,
    /// The client must not receive etcd's response.
    Refused(Status),
}

/// State of the direction towards the client: a pump that detects a stalled reader.
pub(in crate::driver) struct ResponseStream {
    pump: Pump,
    ctx: Rc<WorkerContext>,
    connection: Rc<ClientConnection>,
    /// The client must read the response within a time. True for unary calls; a client may pause a
    /// stream for any time.
    timed: bool,
    observer: ResponseObserver,
    /// For streaming methods: the index of the method and the number of messages counted so far.
    counted: Option<(usize, u64)>,
    stall: Option<Stall>,
    /// Log entry of the call.
    log: Option<Rc<LoggedCall>>,
    /// Key translation, for methods with keys in a namespace.
    translation: Option<Box<Translation>>,
}

impl From<TranslationError> for ResponseStreamError {
    fn from(error: TranslationError) -> ResponseStreamError {
        match error {
            TranslationError::TooLarge { len, max } => {
                ResponseStreamError::Pump(PumpError::TooLarge { len, max })
            }
            TranslationError::Refused(status) => ResponseStreamError::Refused(status),
        }
    }
}

impl ResponseStream {
    /// Creates the direction for a call. If `timed`, the client must read the response within
    /// [`limits::STALLED_READER_TIME`].
    pub(in crate::driver) fn new(
        call: &Call,
        timed: bool,
        observer: ResponseObserver,
    ) -> ResponseStream {
        let pump = Pump::new(call.ctx.max.recv);
        ResponseStream {
            pump,
            ctx: call.ctx.clone(),
            connection: call.connection.clone(),
            timed,
            observer,
            counted: None,
            stall: None,
            log: call.log.clone(),
            translation: None,
        }
    }

    /// Counts the messages of streaming methods.
    pub(in crate::driver) fn with_counters(mut self, call: &Call) -> ResponseStream {
        self.counted = call.streaming_method().map(|method| (method, 0));
        self
    }

    /// Translates keys, if the method has keys and there is a namespace.
    pub(in crate::driver) fn with_translation(mut self, method: Option<&Method>) -> ResponseStream {
        self.translation = Translation::of_responses(&self.ctx, method);
        self
    }

    /// Moves chunks that have arrived to the translation, for [`ResponseStream::poll`] to send.
    /// Without a translation the chunks stay.
    pub(in crate::driver) fn push_arrived(&mut self, chunks: &mut VecDeque<Bytes>) {
        if let Some(translation) = &mut self.translation {
            chunks.drain(..).for_each(|chunk| translation.push(chunk));
        }
    }

    /// Returns the observer of the response.
    pub(in crate::driver) fn observer(&self) -> &ResponseObserver {
        &self.observer
    }

    /// Sends the offered chunk. `waiting_bytes` is the number of bytes that the proxy buffers
    /// meanwhile.
    pub(in crate::driver) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Payload>,
        waiting_bytes: usize,
    ) -> Poll<Result<(), ResponseStreamError>> {
        let polled = self.pump.poll_offered(cx, to, false);
        self.check_stall(cx, polled, || waiting_bytes)
    }

    /// Offers the chunk for [`ResponseStream::poll_chunk`].
    pub(in crate::driver) fn offer(&mut self, chunk: Bytes) -> Result<(), PumpError> {
        self.pump.scan(&chunk)?;
        log_sent(&self.log, &chunk);
        self.pump.offer(chunk);
        Ok(())
    }

    /// Relays until etcd ends its stream.
    pub(in crate::driver) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Payload>,
    ) -> Poll<Result<PumpEnd, ResponseStreamError>> {
        let polled = self.poll_plain_or_translated(cx, from, to);
        self.count_messages();
        polled
    }

    /// Counts messages that passed since the last call.
    fn count_messages(&mut self) {
        let Some((method, counted)) = &mut self.counted else {
            return;
        };
        let translated = self.translation.as_ref().map_or(0, |t| t.messages());
        let messages = self.pump.messages() + translated;
        let metrics = &self.ctx.counters().calls[*method];
        metrics.sent.add((messages - *counted) as usize);
        *counted = messages;
    }

    fn poll_plain_or_translated(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Payload>,
    ) -> Poll<Result<PumpEnd, ResponseStreamError>> {
        if let Some(mut translation) = self.translation.take() {
            let polled = self.poll_translated(cx, from, to, &mut translation);
            self.translation = Some(translation);
            return polled;
        }
        let (ctx, connection, observer) = (&self.ctx, &self.connection, &self.observer);
        let log = &self.log;
        let polled = self.pump.poll(cx, from, to, |chunk, starts_message| {
            if starts_message {
                observer.observe(ctx, connection, chunk);
            }
            log_sent(log, chunk);
        });
        self.check_stall(cx, polled, || from.flow_control().used_capacity())
    }

    /// Relays translated messages, each as soon as it is complete.
    fn poll_translated(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Payload>,
        translation: &mut Translation,
    ) -> Poll<Result<PumpEnd, ResponseStreamError>> {
        loop {
            let polled = self.pump.poll_offered(cx, to, false);
            // A large message is buffered completely even if its client reads well. The bytes above
            // this bound count only on the worker ([`limits::LARGE_RESPONSE_BYTES`]).
            let unsent = self.pump.unsent() + translation.unsent();
            let unsent = unsent.min(limits::MAX_STALLED_BYTES / 2);
            ready!(self.check_stall(cx, polled, || unsent))?;
            if let Some(piece) = translation.next(&self.ctx)? {
                log_sent(&self.log, &piece);
                self.pump.offer(piece);
                continue;
            }
            let (ctx, connection, observer) = (&self.ctx, &self.connection, &self.observer);
            let received = translation.poll_receive(cx, from, |chunk, starts_message| {
                if starts_message {
                    observer.observe(ctx, connection, chunk);
                }
            });
            if !ready!(received).map_err(ResponseStreamError::Pump)? {
                // The client receives no part of a truncated message. The status of etcd explains
                // the truncation.
                return Poll::Ready(match ready!(from.poll_trailers(cx)) {
                    Ok(Some(trailers)) => Ok(PumpEnd::Trailers(trailers)),
                    Ok(None) => Ok(PumpEnd::NoTrailers),
                    Err(e) => Err(ResponseStreamError::Pump(PumpError::Receive(e))),
                });
            }
        }
    }

    fn check_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<Result<T, PumpError>>,
        waiting_bytes: impl FnMut() -> usize,
    ) -> Poll<Result<T, ResponseStreamError>> {
        match polled {
            Poll::Ready(result) => {
                self.stall = None;
                Poll::Ready(result.map_err(ResponseStreamError::Pump))
            }
            Poll::Pending if self.pump.waits_for_reader() => self.poll_stall(cx, waiting_bytes),
            Poll::Pending => {
                self.stall = None;
                Poll::Pending
            }
        }
    }

    fn poll_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut waiting_bytes: impl FnMut() -> usize,
    ) -> Poll<Result<T, ResponseStreamError>> {
        let passed = self.pump.forwarded();
        if self
            .stall
            .as_ref()
            .is_none_or(|stall| stall.passed != passed)
        {
            // Drop the old stall first, or its bytes would be counted twice.
            self.stall = None;
            self.stall = Some(Stall::start(&self.ctx, &self.connection, passed));
        }
        let Some(stall) = &mut self.stall else {
            return Poll::Pending;
        };
        loop {
            stall.set_bytes(waiting_bytes());
            let exceeded = if self.connection.stalled_bytes.get() > limits::MAX_STALLED_BYTES {
                Some(Limit::StalledBytes)
            } else if self.timed && stall.started.elapsed() >= limits::STALLED_READER_TIME {
                Some(Limit::SlowReader)
            } else {
                None
            };
            if let Some(limit) = exceeded {
                self.ctx.counters().limit_hit(limit);
                return Poll::Ready(Err(ResponseStreamError::Limit));
            }
            ready!(stall.next_check.poll(cx));
            stall.next_check = self
                .ctx
                .timers
                .at(Some(Instant::now() + limits::STALL_CHECK_INTERVAL));
        }
    }
}

/// Logs a sent chunk.
fn log_sent(log: &Option<Rc<LoggedCall>>, chunk: &Bytes) {
    if let Some(log) = log {
        log.count_sent(chunk);
    }
}

/// A period without progress. The bytes that wait meanwhile count at the connection. No event
/// reports that they grow, so a timer checks them.
struct Stall {
    connection: Rc<ClientConnection>,
    passed: usize,
    started: Instant,
    bytes: usize,
    next_check: Timer,
}

impl Stall {
    fn start(ctx: &WorkerContext, connection: &Rc<ClientConnection>, passed: usize) -> Stall {
        let started = Instant::now();
        let next_check = ctx.timers.at(Some(started + limits::STALL_CHECK_INTERVAL));
        Stall {
            connection: connection.clone(),
            passed,
            started,
            bytes: 0,
            next_check,
        }
    }

    fn set_bytes(&mut self, bytes: usize) {
        let others = self.connection.stalled_bytes.get() - self.bytes;
        self.connection.stalled_bytes.set(others + bytes);
        self.bytes = bytes;
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.set_bytes(0);
    }
}
