//! The direction towards the client, with the bounds on clients that do not read (S1).

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::time::Instant;

use crate::limits;
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::net::pump::{End, Pump, PumpError};
use crate::net::timers::Timer;
use crate::service::Ctx;
use crate::service::lesson::Lesson;
use crate::service::peer::Peer;

/// Why the direction ended early.
pub(super) enum Stopped {
    /// The relay itself failed.
    Pump(PumpError),
    /// The client met a bound.
    Limit,
}

/// A pump whose reader is watched.
pub(super) struct Outflow {
    pump: Pump,
    ctx: Rc<Ctx>,
    peer: Rc<Peer>,
    /// Unary answers must be read within a time; streams may wait for ever.
    timed: bool,
    lesson: Lesson,
    stall: Option<Stall>,
}

impl Outflow {
    pub(super) fn new(ctx: &Rc<Ctx>, peer: &Rc<Peer>, timed: bool, lesson: Lesson) -> Outflow {
        let pump = Pump::new(ctx.max.recv);
        Outflow {
            pump,
            ctx: ctx.clone(),
            peer: peer.clone(),
            timed,
            lesson,
            stall: None,
        }
    }

    /// What is learned from what passes.
    pub(super) fn lesson(&self) -> &Lesson {
        &self.lesson
    }

    /// Sends one chunk that is already here; `pinned` bytes wait here with it.
    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Payload>,
        pinned: usize,
    ) -> Poll<Result<(), Stopped>> {
        let polled = self.pump.poll_offered(cx, to, false);
        self.watched(cx, polled, || pinned)
    }

    /// The chunk for [`Outflow::poll_chunk`].
    pub(super) fn offer(&mut self, chunk: Bytes) -> Result<(), PumpError> {
        self.pump.scan(&chunk)?;
        self.pump.offer(chunk);
        Ok(())
    }

    /// Relays until the end.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream<Payload>,
    ) -> Poll<Result<End, Stopped>> {
        let (ctx, peer, lesson) = (&self.ctx, &self.peer, &self.lesson);
        let polled = self.pump.poll(cx, from, to, |chunk, begins| {
            if begins {
                lesson.see(ctx, peer, chunk);
            }
        });
        self.watched(cx, polled, || from.flow_control().used_capacity())
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

/// A time without progress. What waits here meanwhile is counted at the connection; it grows
/// without a word to us, hence the looks.
struct Stall {
    peer: Rc<Peer>,
    passed: usize,
    began: Instant,
    bytes: usize,
    look: Timer,
}

impl Stall {
    fn begin(ctx: &Ctx, peer: &Rc<Peer>, passed: usize) -> Stall {
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
