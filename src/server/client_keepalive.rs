//! Keepalive of client connections: pings an idle connection and closes it if no response arrives.
//!
//! The state machine decides when to check next, so an idle connection costs only a few checks, and
//! a busy connection costs nothing per frame.

use std::pin::Pin;
use std::task::{Context, Poll};

use h2::server::Connection;
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use crate::net::io::{Batched, Flusher};
use crate::net::payload::Payload;
use crate::state_machine::keepalive::{KeepaliveAction, KeepaliveOptions, KeepaliveState};

/// Keepalive of one client connection.
pub(super) struct ClientKeepalive {
    state: KeepaliveState,
    /// Created with the first ping, because most connections never need one.
    ping_pong: Option<PingPong>,
    /// The timer has the waker of the connection's task. The waker is registered at most once per
    /// check, because each poll of the connection polls the keepalive, from the same task.
    timer_registered: bool,
}

impl ClientKeepalive {
    /// Starts the keepalive of a connection that opens now.
    pub(super) fn new(keepalive: KeepaliveOptions, flusher: &Flusher) -> ClientKeepalive {
        ClientKeepalive {
            state: KeepaliveState::new(keepalive, flusher.reads(), Instant::now().into_std()),
            ping_pong: None,
            timer_registered: false,
        }
    }

    /// Returns the time of the first check.
    pub(super) fn first_check(&self) -> Instant {
        self.state.next_check(Instant::now().into_std()).into()
    }

    /// Checks the connection when the timer expires. Ready when the client does not respond.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        h2: &mut Connection<Batched, Payload>,
        flusher: &Flusher,
    ) -> Poll<()> {
        if self.timer_registered && !timer.is_elapsed() {
            return Poll::Pending;
        }
        if let Some(ping_pong) = &mut self.ping_pong {
            // Consumes the response, so that the next ping can be sent.
            let _ = ping_pong.poll_pong(cx);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now().into_std();
            match self.state.check(flusher.reads(), 0, now) {
                KeepaliveAction::Fine => {}
                KeepaliveAction::Ping => {
                    self.ping_pong = self.ping_pong.take().or_else(|| h2.ping_pong());
                    if let Some(ping_pong) = &mut self.ping_pong {
                        // An error means that the last ping has no response yet.
                        let _ = ping_pong.send_ping(Ping::opaque());
                    }
                    cx.waker().wake_by_ref();
                }
                KeepaliveAction::Dead => return Poll::Ready(()),
            }
            timer.as_mut().reset(self.state.next_check(now).into());
        }
        self.timer_registered = true;
        Poll::Pending
    }
}
