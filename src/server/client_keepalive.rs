//! Whether the client of an idle connection is still there: it is pinged after a time of silence, and
//! given up when nothing comes back in time. When to look is the machine's to say, so that an idle
//! connection costs a few looks in all that time, and an open one nothing per frame.

use std::pin::Pin;
use std::task::{Context, Poll};

use h2::server::Connection;
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use crate::net::io::{Batched, Flusher};
use crate::net::payload::Payload;
use crate::state_machine::keepalive::{KeepaliveAction, KeepaliveOptions, KeepaliveState};

/// The client's silence, and the pings.
pub(super) struct Idle {
    silence: KeepaliveState,
    /// There once the first ping was sent: most connections never come to it.
    pings: Option<PingPong>,
    /// The timer knows whom to wake, which it is told at most once per look: this is polled with every
    /// call, and by the same task.
    waits: bool,
}

impl Idle {
    /// For a connection that is up now.
    pub(super) fn new(keepalive: KeepaliveOptions, flusher: &Flusher) -> Idle {
        Idle {
            silence: KeepaliveState::new(keepalive, flusher.reads(), Instant::now().into_std()),
            pings: None,
            waits: false,
        }
    }

    /// When to look first.
    pub(super) fn first_look(&self) -> Instant {
        self.silence.next_check(Instant::now().into_std()).into()
    }

    /// Looks when it is time; ready when the client is gone.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        h2: &mut Connection<Batched, Payload>,
        flusher: &Flusher,
    ) -> Poll<()> {
        if self.waits && !timer.is_elapsed() {
            return Poll::Pending;
        }
        if let Some(pings) = &mut self.pings {
            // Takes the answer, so that the next ping can be sent.
            let _ = pings.poll_pong(cx);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now().into_std();
            match self.silence.check(flusher.reads(), 0, now) {
                KeepaliveAction::Fine => {}
                KeepaliveAction::Ping => {
                    self.pings = self.pings.take().or_else(|| h2.ping_pong());
                    if let Some(pings) = &mut self.pings {
                        // An error means that the last ping is still unanswered.
                        let _ = pings.send_ping(Ping::opaque());
                    }
                    cx.waker().wake_by_ref();
                }
                KeepaliveAction::Dead => return Poll::Ready(()),
            }
            timer.as_mut().reset(self.silence.next_check(now).into());
        }
        self.waits = true;
        Poll::Pending
    }
}
