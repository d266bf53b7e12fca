//! Relay direction towards etcd, over all attempts of a call.
//!
//! It first sends what was received before, then what arrives. It buffers sent bytes for a replay
//! while the call may be sent again (E2). It bounds the time in which a unary request must arrive
//! (S1).

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::time::{Sleep, sleep};

use crate::call_log::open_call::LoggedCall;
use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::relay::replay_buffer::ReplayBuffer;
use crate::driver::relay::translation::{Translation, TranslationError};
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::pump::{Pump, PumpEnd, PumpError};
use crate::wire::status::{Code, Status};

/// State of the direction towards etcd.
pub(in crate::driver) struct RequestStream {
    ctx: Rc<WorkerContext>,
    pump: Pump,
    /// Chunks to send before new chunks are read.
    backlog: VecDeque<Bytes>,
    /// The chunk in the pump is from the backlog.
    in_backlog: bool,
    replay: ReplayBuffer,
    /// The client has half-closed its stream.
    client_done: bool,
    state: RequestStreamState,
    /// Runs while a unary request is incomplete.
    timer: Option<Pin<Box<Sleep>>>,
    unary: bool,
    /// For streaming methods: the index of the method and the number of messages counted so far.
    counted: Option<(usize, u64)>,
    /// etcd may have processed the call.
    may_be_processed: bool,
    /// Log entry of the call.
    log: Option<Rc<LoggedCall>>,
    /// Key translation, for methods with keys in a namespace.
    translation: Option<Box<Translation>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestStreamState {
    Open,
    /// END_STREAM has been sent, or etcd reads no more.
    Over,
}

/// Reason why the call cannot continue.
pub(in crate::driver) enum RequestStreamError {
    ClientGone,
    Refused(Status),
}

impl RequestStreamError {
    /// Returns the status for the client, or an interruption if the client has left.
    pub(in crate::driver) fn into_status(self) -> Result<Status, Interrupted> {
        match self {
            RequestStreamError::ClientGone => Err(Interrupted::ClientGone),
            RequestStreamError::Refused(status) => Ok(status),
        }
    }
}

impl RequestStream {
    /// Creates the direction for a call of which `received` has been read already.
    pub(in crate::driver) fn new(call: &Call, received: Vec<Bytes>) -> RequestStream {
        let mut replay = ReplayBuffer::new(call.ctx.clone());
        received.iter().for_each(|chunk| replay.push(chunk));
        RequestStream {
            ctx: call.ctx.clone(),
            pump: Pump::new(call.ctx.max.send),
            backlog: received.into(),
            in_backlog: true,
            replay,
            client_done: false,
            state: RequestStreamState::Open,
            timer: None,
            unary: call.is_unary(),
            counted: call.streaming_method().map(|method| (method, 0)),
            may_be_processed: false,
            log: call.log.clone(),
            translation: Translation::of_requests(call),
        }
    }

    /// Marks the call as possibly processed; an attempt starts.
    pub(in crate::driver) fn start_attempt(&mut self) {
        self.may_be_processed = true;
    }

    /// Marks the call as not processed: etcd provably did not process it (E2).
    pub(in crate::driver) fn mark_unprocessed(&mut self) {
        self.may_be_processed = false;
    }

    /// Returns whether etcd may have processed the sent messages.
    pub(in crate::driver) fn may_be_processed(&self) -> bool {
        self.may_be_processed
    }

    /// Starts over for another attempt. The replay buffer must be complete.
    pub(in crate::driver) fn rewind(&mut self, from: &mut RecvStream) {
        if !self.in_backlog {
            // The unsent chunk is sent from the backlog now, so its window can be released. An
            // error means that the stream is closed; the next poll reports that.
            let _ = from.flow_control().release_capacity(self.pump.unsent());
        }
        self.pump = Pump::new(self.ctx.max.send);
        self.backlog = self.replay.chunks().to_vec().into();
        self.in_backlog = true;
        self.state = RequestStreamState::Open;
        if let Some(translation) = &mut self.translation {
            translation.rewind();
        }
    }

    /// Returns whether the call could be sent again.
    pub(in crate::driver) fn is_replayable(&self) -> bool {
        self.replay.is_complete()
    }

    /// Returns all chunks sent, if the replay buffer is complete.
    pub(in crate::driver) fn sent_chunks(&mut self) -> Option<Vec<Bytes>> {
        let complete = self.replay.is_complete();
        complete.then(|| self.replay.chunks().to_vec())
    }

    /// Discards the replay buffer: the response has started, so there is no other attempt.
    pub(in crate::driver) fn discard_replay(&mut self) {
        self.replay.discard();
    }

    /// Sends as much as possible. Ready only with an error.
    pub(in crate::driver) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), RequestStreamError>> {
        if self.state == RequestStreamState::Over {
            return Poll::Pending;
        }
        let polled = match self.translation.take() {
            None => self.poll_pump(cx, from, to).map_err(SendError::Pump),
            Some(mut translation) => {
                let polled = self.poll_translated(cx, from, to, &mut translation);
                self.translation = Some(translation);
                polled
            }
        };
        self.count_messages();
        match polled {
            Poll::Ready(Ok(())) => {
                self.state = RequestStreamState::Over;
                self.timer = None;
                Poll::Pending
            }
            // etcd has ended its side. Its response will arrive.
            Poll::Ready(Err(SendError::Pump(PumpError::SendClosed))) => {
                self.state = RequestStreamState::Over;
                Poll::Pending
            }
            Poll::Ready(Err(SendError::Pump(PumpError::Receive(_)))) => {
                Poll::Ready(Err(RequestStreamError::ClientGone))
            }
            Poll::Ready(Err(SendError::Refused(status))) => {
                Poll::Ready(Err(RequestStreamError::Refused(status)))
            }
            Poll::Ready(Err(SendError::Pump(PumpError::TooLarge { len, max }))) => {
                self.ctx.counters().limit_hit(Limit::SendBytes);
                Poll::Ready(Err(RequestStreamError::Refused(reply::send_too_large(
                    len, max,
                ))))
            }
            Poll::Pending if self.unary && !self.client_done => self.poll_timer(cx),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Counts messages that passed since the last call. Messages of a replay are not counted again.
    fn count_messages(&mut self) {
        let Some((method, counted)) = &mut self.counted else {
            return;
        };
        let translated = self.translation.as_ref().map_or(0, |t| t.messages());
        let messages = self.pump.messages() + translated;
        if messages > *counted {
            let metrics = &self.ctx.counters().calls[*method];
            metrics.received.add((messages - *counted) as usize);
            *counted = messages;
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestStreamError>> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(limits::REQUEST_TIME)));
        ready!(timer.as_mut().poll(cx));
        self.ctx.counters().limit_hit(Limit::SlowRequest);
        Poll::Ready(Err(RequestStreamError::Refused(reply::slow_request())))
    }

    fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), PumpError>> {
        while self.in_backlog {
            ready!(self.pump.poll_offered(cx, to, false))?;
            match self.backlog.pop_front() {
                Some(chunk) => {
                    self.pump.scan(&chunk)?;
                    self.pump.offer(chunk);
                }
                None => self.in_backlog = false,
            }
        }
        if self.client_done {
            to.send_data(Bytes::new(), true)
                .map_err(|_| PumpError::SendClosed)?;
            return Poll::Ready(Ok(()));
        }
        let (replay, log) = (&mut self.replay, &self.log);
        let end = ready!(self.pump.poll(cx, from, to, |chunk, _| {
            replay.push(chunk);
            log_received(log, chunk);
        }))?;
        self.client_done = true;
        match end {
            PumpEnd::EndStreamSent => {}
            // gRPC clients send no trailers. etcd's server closes the whole connection, with the
            // calls of all clients, when it receives some. The proxy therefore drops them.
            PumpEnd::NoTrailers | PumpEnd::Trailers(_) => to
                .send_data(Bytes::new(), true)
                .map_err(|_| PumpError::SendClosed)?,
        }
        Poll::Ready(Ok(()))
    }

    /// Sends translated messages, each as soon as it is complete.
    fn poll_translated(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Bytes>,
        translation: &mut Translation,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let last = translation.is_empty() && self.backlog.is_empty() && from.is_end_stream();
            let ends = last && self.pump.unsent() > 0;
            ready!(self.pump.poll_offered(cx, to, last)).map_err(SendError::Pump)?;
            if ends {
                self.client_done = true;
                return Poll::Ready(Ok(()));
            }
            let piece = translation.next(&self.ctx).inspect_err(|_| {
                // etcd may have applied a message that was sent before this one (R3).
                self.may_be_processed &= self.pump.forwarded() > 0;
            })?;
            if let Some(piece) = piece {
                self.pump.offer(piece);
                continue;
            }
            if let Some(chunk) = self.backlog.pop_front() {
                translation.push(chunk);
                continue;
            }
            if self.client_done {
                return Poll::Ready(end_translated(translation, to));
            }
            let (replay, log) = (&mut self.replay, &self.log);
            let received = translation.poll_receive(cx, from, |chunk, _| {
                replay.push(chunk);
                log_received(log, chunk);
            });
            self.client_done = !ready!(received).map_err(SendError::Pump)?;
        }
    }
}

/// Ends a translated request. A truncated message is an error and is not sent.
fn end_translated(translation: &Translation, to: &mut SendStream<Bytes>) -> Result<(), SendError> {
    if translation.is_inside_message() {
        // Status of etcd for a truncated message.
        let status = Status::new(Code::Internal, "unexpected EOF");
        return Err(SendError::Refused(status));
    }
    to.send_data(Bytes::new(), true)
        .map_err(|_| SendError::Pump(PumpError::SendClosed))
}

/// Logs a received chunk.
fn log_received(log: &Option<Rc<LoggedCall>>, chunk: &Bytes) {
    if let Some(log) = log {
        log.count_received(chunk);
    }
}

/// Reason why sending stopped.
enum SendError {
    Pump(PumpError),
    Refused(Status),
}

impl From<TranslationError> for SendError {
    fn from(error: TranslationError) -> SendError {
        match error {
            TranslationError::TooLarge { len, max } => {
                SendError::Pump(PumpError::TooLarge { len, max })
            }
            TranslationError::Refused(status) => SendError::Refused(status),
        }
    }
}
