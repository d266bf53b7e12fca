//! Time limit of a connection up to its first request.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::time::{Instant, sleep, timeout_at};

use crate::driver::WorkerContext;
use crate::limits;

/// Runs the part of a connection before its first request until `deadline`.
///
/// At a drain, a connection that has not completed this part has [`limits::CLOSE_TIME`] left (S2).
/// The future is boxed: otherwise a connection would reserve its memory until the connection ends.
///
/// # Errors
/// The error of `handshake`, or a time-out.
pub(super) fn with_handshake_timeout<'a, T: 'a>(
    ctx: &'a WorkerContext,
    deadline: Instant,
    handshake: impl Future<Output = io::Result<T>> + 'a,
) -> Pin<Box<dyn Future<Output = io::Result<T>> + 'a>> {
    let drained = async {
        ctx.drain.begun().await;
        sleep(limits::CLOSE_TIME).await;
    };
    Box::pin(async move {
        tokio::select! {
            finished = timeout_at(deadline, handshake) => finished?,
            () = drained => Err(io::ErrorKind::TimedOut.into()),
        }
    })
}
