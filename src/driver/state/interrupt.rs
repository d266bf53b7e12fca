//! What may cut any call short: its client leaves, its deadline passes, the process ends.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use crate::net::drain::Drain;
use crate::net::timers::Timer;

/// Why a call was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum Interrupted {
    /// The client reset the stream or is gone altogether; nobody is left to be told.
    ClientGone,
    /// The client's deadline has passed (P3).
    Deadline,
    /// The process is to end and the call has no end of its own (S2).
    Drain,
}

/// Polls to the end, or until the deadline or the drain. `poll` itself watches for its client.
pub(in crate::driver) async fn bounded<T>(
    mut deadline: Timer,
    drain: Option<&Drain>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, Interrupted>>,
) -> Result<T, Interrupted> {
    let mut begun = pin!(drain.map(Drain::begun));
    poll_fn(|cx| {
        if let Poll::Ready(result) = poll(cx) {
            return Poll::Ready(result);
        }
        if deadline.poll(cx).is_ready() {
            return Poll::Ready(Err(Interrupted::Deadline));
        }
        if begun
            .as_mut()
            .as_pin_mut()
            .is_some_and(|begun| begun.poll(cx).is_ready())
        {
            return Poll::Ready(Err(Interrupted::Drain));
        }
        Poll::Pending
    })
    .await
}
