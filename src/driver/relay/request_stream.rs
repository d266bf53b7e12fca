//! The direction towards etcd, over all attempts at a call: what was received before, then what
//! arrives, kept as long as it may have to be sent again (E2), bounded in time for unary calls (S1).

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
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::message_budget::ConnectionBudget;
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::pump::{End, Pump, PumpError};
use crate::wire::frame::FrameError;
use crate::wire::namespace::{Stream, StreamError};
use crate::wire::status::{Code, Status};

/// The direction's state.
pub(in crate::driver) struct RequestStream {
    ctx: Rc<WorkerContext>,
    pump: Pump,
    /// Received and to be sent before anything else.
    backlog: VecDeque<Bytes>,
    /// The pump holds what was offered from the backlog.
    in_backlog: bool,
    replay: ReplayBuffer,
    /// The client has half-closed.
    client_done: bool,
    state: RequestStreamState,
    /// Runs while a unary request is incomplete.
    timer: Option<Pin<Box<Sleep>>>,
    unary: bool,
    /// Where a call may have several messages: whose they are, and those that have been counted.
    counted: Option<(usize, u64)>,
    /// etcd may have processed it.
    may_be_done: bool,
    /// What is noted of the call.
    record: Option<Rc<LoggedCall>>,
    /// Of a method whose keys a namespace changes.
    translation: Option<Box<Translation>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestStreamState {
    Open,
    /// END_STREAM has been sent, or etcd wants no more.
    Over,
}

/// Why the call cannot go on.
pub(in crate::driver) enum RequestStreamError {
    ClientGone,
    Refused(Status),
}

impl RequestStreamError {
    /// What the client is told, if it is still there.
    pub(in crate::driver) fn into_cut(self) -> Result<Status, Interrupted> {
        match self {
            RequestStreamError::ClientGone => Err(Interrupted::ClientGone),
            RequestStreamError::Refused(status) => Ok(status),
        }
    }
}

impl RequestStream {
    /// For a call of which these bytes have been received.
    pub(in crate::driver) fn new(call: &Call, received: Vec<Bytes>) -> RequestStream {
        let mut replay = ReplayBuffer::new(call.ctx.clone());
        received.iter().for_each(|chunk| replay.keep(chunk));
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
            counted: call.streamed().map(|method| (method, 0)),
            may_be_done: false,
            record: call.record.clone(),
            translation: Translation::of(call),
        }
    }

    /// An attempt begins.
    pub(in crate::driver) fn begins(&mut self) {
        self.may_be_done = true;
    }

    /// etcd provably did not process it (E2).
    pub(in crate::driver) fn is_undone(&mut self) {
        self.may_be_done = false;
    }

    /// Whether etcd may have processed what was sent.
    pub(in crate::driver) fn may_be_done(&self) -> bool {
        self.may_be_done
    }

    /// Begins anew for another attempt; the replay is complete.
    pub(in crate::driver) fn rewind(&mut self, from: &mut RecvStream) {
        if !self.in_backlog {
            // It leaves from the backlog now, where nothing is owed to the window any more. An
            // error means that the stream is gone, which the next poll says.
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

    /// Whether the call could be sent once more.
    pub(in crate::driver) fn is_replayable(&self) -> bool {
        self.replay.is_complete()
    }

    /// All that has been sent, if it is still here.
    pub(in crate::driver) fn sent(&mut self) -> Option<Vec<Bytes>> {
        let complete = self.replay.is_complete();
        complete.then(|| self.replay.chunks().to_vec())
    }

    /// The answer has begun: there is no other attempt.
    pub(in crate::driver) fn forget(&mut self) {
        self.replay.forget();
    }

    /// Moves what can be moved; ready with an error only.
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
            None => self.poll_pump(cx, from, to).map_err(Stop::Pump),
            Some(mut translation) => {
                let polled = self.poll_translated(cx, from, to, &mut translation);
                self.translation = Some(translation);
                polled
            }
        };
        self.count();
        match polled {
            Poll::Ready(Ok(())) => {
                self.state = RequestStreamState::Over;
                self.timer = None;
                Poll::Pending
            }
            // etcd has ended its side; its answer is on the way.
            Poll::Ready(Err(Stop::Pump(PumpError::To))) => {
                self.state = RequestStreamState::Over;
                Poll::Pending
            }
            Poll::Ready(Err(Stop::Pump(PumpError::From(_)))) => {
                Poll::Ready(Err(RequestStreamError::ClientGone))
            }
            Poll::Ready(Err(Stop::Refused(status))) => {
                Poll::Ready(Err(RequestStreamError::Refused(status)))
            }
            Poll::Ready(Err(Stop::Pump(PumpError::TooLarge { len, max }))) => {
                self.ctx.count().hit(Limit::SendBytes);
                Poll::Ready(Err(RequestStreamError::Refused(reply::send_too_large(
                    len, max,
                ))))
            }
            Poll::Pending if self.unary && !self.client_done => self.poll_timer(cx),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Counts messages of a stream that have come since. What is sent once more is not counted again.
    fn count(&mut self) {
        let Some((method, counted)) = &mut self.counted else {
            return;
        };
        let translated = self.translation.as_ref().map_or(0, |t| t.messages);
        let messages = self.pump.messages() + translated;
        if messages > *counted {
            let count = &self.ctx.count().calls[*method];
            count.received.add((messages - *counted) as usize);
            *counted = messages;
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestStreamError>> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(limits::REQUEST_TIME)));
        ready!(timer.as_mut().poll(cx));
        self.ctx.count().hit(Limit::SlowRequest);
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
                .map_err(|_| PumpError::To)?;
            return Poll::Ready(Ok(()));
        }
        let (replay, record) = (&mut self.replay, &self.record);
        let end = ready!(self.pump.poll(cx, from, to, |chunk, _| {
            replay.keep(chunk);
            note(record, chunk);
        }))?;
        self.client_done = true;
        match end {
            End::Passed => {}
            // gRPC has no trailers from clients, and etcd's server ends the whole connection, with
            // everybody's calls, when it meets some: they stop here.
            End::Bare | End::Trailers(_) => to
                .send_data(Bytes::new(), true)
                .map_err(|_| PumpError::To)?,
        }
        Poll::Ready(Ok(()))
    }

    /// The same where messages are translated, each when it is whole.
    fn poll_translated(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Bytes>,
        translation: &mut Translation,
    ) -> Poll<Result<(), Stop>> {
        loop {
            let last = translation.is_empty() && self.backlog.is_empty() && from.is_end_stream();
            let ends = last && self.pump.unsent() > 0;
            ready!(self.pump.poll_offered(cx, to, last)).map_err(Stop::Pump)?;
            if ends {
                self.client_done = true;
                return Poll::Ready(Ok(()));
            }
            if let Some(piece) = translation.next(&self.ctx).map_err(|status| {
                // A message that left before this one may have been done (R3).
                self.may_be_done &= self.pump.passed() > 0;
                Stop::Refused(status)
            })? {
                self.pump.offer(piece);
                continue;
            }
            if let Some(chunk) = self.backlog.pop_front() {
                translation.push(chunk);
                continue;
            }
            if self.client_done {
                return Poll::Ready(translation.end(to));
            }
            match ready!(from.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    // An error means that the stream is gone, which the next poll says.
                    let _ = from.flow_control().release_capacity(chunk.len());
                    self.replay.keep(&chunk);
                    note(&self.record, &chunk);
                    translation.push(chunk);
                }
                Some(Err(e)) => return Poll::Ready(Err(Stop::Pump(PumpError::From(e)))),
                None => self.client_done = true,
            }
        }
    }
}

/// What arrived is noted, if the call is to be told of.
fn note(record: &Option<Rc<LoggedCall>>, chunk: &Bytes) {
    if let Some(record) = record {
        record.received(chunk);
    }
}

/// Why the direction stopped.
enum Stop {
    Pump(PumpError),
    Refused(Status),
}

/// Messages on their way into the namespace.
struct Translation {
    stream: Stream,
    /// Translated and not sent.
    out: VecDeque<Bytes>,
    /// How many have been.
    messages: u64,
    unfinished: ConnectionBudget,
}

impl Translation {
    fn of(call: &Call) -> Option<Box<Translation>> {
        let gate = call.ctx.shared.gate()?;
        let stream = gate.requests(call.method, call.ctx.max.send)?;
        Some(Box::new(Translation {
            stream,
            out: VecDeque::new(),
            messages: 0,
            unfinished: ConnectionBudget::new(&call.peer, &call.ctx.large_requests),
        }))
    }

    /// Nothing has arrived.
    fn rewind(&mut self) {
        self.stream.clear();
        self.out.clear();
        self.messages = 0;
        self.unfinished.set(0);
    }

    fn is_empty(&self) -> bool {
        self.out.is_empty() && self.stream.held() == 0
    }

    fn push(&mut self, chunk: Bytes) {
        self.stream.push(chunk);
    }

    /// The next piece that may be sent.
    fn next(&mut self, ctx: &WorkerContext) -> Result<Option<Bytes>, Status> {
        while self.out.is_empty() {
            match self.stream.next() {
                Ok(Some(pieces)) => {
                    self.messages += 1;
                    self.out.extend(pieces);
                }
                Ok(None) => break,
                Err(error) => {
                    if let StreamError::Frame(FrameError::TooLarge { .. }) = error {
                        ctx.count().hit(Limit::SendBytes);
                    }
                    return Err(error.status(self.stream.messages()));
                }
            }
        }
        self.unfinished.set(self.stream.held());
        if self.unfinished.is_too_much() {
            ctx.count().hit(Limit::LargeRequests);
            return Err(reply::too_many_large());
        }
        Ok(self.out.pop_front())
    }

    /// The client has said all; what is no whole message is not passed on.
    fn end(&self, to: &mut SendStream<Bytes>) -> Result<(), Stop> {
        if self.stream.held() > 0 {
            // As etcd says it.
            let status = Status::new(Code::Internal, "unexpected EOF");
            return Err(Stop::Refused(status));
        }
        to.send_data(Bytes::new(), true)
            .map_err(|_| Stop::Pump(PumpError::To))
    }
}
