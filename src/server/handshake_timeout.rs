//! The time a connection has before its first request. What is done in it is left to the callers.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::time::{Instant, sleep, timeout_at};

use crate::driver::WorkerContext;
use crate::limits;

/// What comes before the first request, up to its time limit; at a drain, who has not come so far
/// is not waited for (S2). Boxed: a connection keeps the room for it to its end, however long that
/// is after the opening.
pub(super) fn in_time<'a, T: 'a>(
    ctx: &'a WorkerContext,
    until: Instant,
    opening: impl Future<Output = io::Result<T>> + 'a,
) -> Pin<Box<dyn Future<Output = io::Result<T>> + 'a>> {
    let drained = async {
        ctx.drain.begun().await;
        sleep(limits::CLOSE_TIME).await;
    };
    Box::pin(async move {
        tokio::select! {
            opened = timeout_at(until, opening) => opened?,
            () = drained => Err(io::ErrorKind::TimedOut.into()),
        }
    })
}
