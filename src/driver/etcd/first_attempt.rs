//! One attempt of an unshared read on the selected endpoint, and the full set of retries if it
//! fails.
//!
//! The attempt uses little memory and one timer. The caller allocates the retries on the heap, because
//! otherwise the future of every read would contain them.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use tokio::time::Instant;

use crate::driver::call::Call;
use crate::driver::etcd::hedged_read::{HedgedRead, PriorAttempt};
use crate::driver::state::interrupt::{Interrupted, until_interrupted};
use crate::driver::state::reply;
use crate::error::Failure;
use crate::limits;
use crate::state_machine::picker::EndpointId;
use crate::upstream::attempt::{Attempt, BufferedResponse};
use crate::wire::status::{Code, Status};

/// Ends a call that was interrupted. Returns its code.
pub(in crate::driver) fn end_interrupted(call: &mut Call, interrupted: Interrupted) -> Code {
    match interrupted {
        Interrupted::ClientGone | Interrupted::Drain => Code::Cancelled,
        Interrupted::Deadline => {
            reply::trailers_only(&mut call.respond, &reply::deadline_exceeded())
        }
    }
}

/// Result of one attempt on the selected endpoint.
pub(in crate::driver) enum FirstAttempt {
    Done(BufferedResponse),
    Interrupted(Interrupted),
    /// The read needs [`fetch_with_retries`].
    Incomplete(PriorAttempt),
}

/// Sends the read to the selected endpoint if its connection is ready.
pub(in crate::driver) async fn first_attempt(call: &mut Call, request: &[Bytes]) -> FirstAttempt {
    let Some(conn) = call.ctx.pool.ready() else {
        return FirstAttempt::Incomplete(PriorAttempt::NotSent);
    };
    let read = HedgedRead::new(&call.ctx, &call.head, request, call.deadline);
    let mut attempt = match read.send(&conn) {
        Ok(attempt) => attempt,
        Err(failure) => return failed(conn.endpoint(), Err(failure)),
    };
    match wait_for_response(call, &mut attempt).await {
        Ok(Ok(response)) if !response.is_unavailable() => FirstAttempt::Done(response),
        Ok(result) => failed(attempt.endpoint(), result),
        Err(NoResponse::Silent) => FirstAttempt::Incomplete(PriorAttempt::Silent(attempt)),
        Err(NoResponse::Interrupted(reason)) => FirstAttempt::Interrupted(reason),
    }
}

fn failed(endpoint: EndpointId, result: Result<BufferedResponse, Failure>) -> FirstAttempt {
    FirstAttempt::Incomplete(PriorAttempt::Failed(endpoint, result))
}

#[derive(Clone, Copy)]
enum NoResponse {
    Silent,
    Interrupted(Interrupted),
}

/// Waits for the response until the attempt counts as silent, the deadline expires or the client
/// leaves.
async fn wait_for_response(
    call: &mut Call,
    attempt: &mut Attempt,
) -> Result<Result<BufferedResponse, Failure>, NoResponse> {
    let silent_at = Instant::now() + limits::SILENT_READ;
    let (until, timed_out) = match call.deadline {
        Some(deadline) if deadline <= silent_at => {
            (deadline, NoResponse::Interrupted(Interrupted::Deadline))
        }
        _ => (silent_at, NoResponse::Silent),
    };
    let mut timer = call.ctx.timers.at(Some(until));
    poll_fn(|cx| {
        if let Poll::Ready(result) = attempt.poll(cx) {
            return Poll::Ready(Ok(result));
        }
        if call.respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(NoResponse::Interrupted(Interrupted::ClientGone)));
        }
        ready!(timer.poll(cx));
        Poll::Ready(Err(timed_out))
    })
    .await
}

/// Continues a read after its first attempt.
///
/// # Errors
///
/// The call was interrupted.
pub(in crate::driver) async fn fetch_with_retries(
    call: &mut Call,
    request: &[Bytes],
    prior: PriorAttempt,
) -> Result<Result<BufferedResponse, Status>, Interrupted> {
    let read = HedgedRead::new(&call.ctx, &call.head, request, call.deadline);
    let timer = call.ctx.timers.at(call.deadline);
    let respond = &mut call.respond;
    let mut fetch = pin!(read.fetch(prior));
    until_interrupted(timer, None, |cx| {
        if let Poll::Ready(result) = fetch.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await
}
