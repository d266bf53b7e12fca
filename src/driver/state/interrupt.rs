//! Interruptions of a call: its client leaves, its deadline passes, or the process shuts down.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use crate::net::drain::Drain;
use crate::net::timers::Timer;

/// Reason why a call was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum Interrupted {
    /// The client has reset the stream or closed the connection, so no status can be sent.
    ClientGone,
    /// The client's deadline has passed (P3).
    Deadline,
    /// The process shuts down and the call has no end of its own (S2).
    Drain,
}

/// Polls until `poll` is ready, the deadline passes, or the drain begins. `poll` itself must detect
/// that the client leaves.
///
/// # Errors
/// Returns the reason of the interruption.
pub(in crate::driver) async fn until_interrupted<T>(
    mut deadline: Timer,
    drain: Option<&Drain>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, Interrupted>>,
) -> Result<T, Interrupted> {
    let mut drain_begun = pin!(drain.map(Drain::begun));
    poll_fn(|cx| {
        if let Poll::Ready(result) = poll(cx) {
            return Poll::Ready(result);
        }
        if deadline.poll(cx).is_ready() {
            return Poll::Ready(Err(Interrupted::Deadline));
        }
        if drain_begun
            .as_mut()
            .as_pin_mut()
            .is_some_and(|drain_begun| drain_begun.poll(cx).is_ready())
        {
            return Poll::Ready(Err(Interrupted::Drain));
        }
        Poll::Pending
    })
    .await
}
