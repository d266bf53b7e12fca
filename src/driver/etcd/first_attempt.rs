//! A read that nobody shares: asked of the serving endpoint, and where that is not enough, with all the
//! second chances it has.
//!
//! The plain path keeps little and waits on one timer. All that is rare is boxed: every read's future
//! would carry it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use tokio::time::Instant;

use crate::driver::call::Call;
use crate::driver::etcd::hedged_read::{Begun, Read};
use crate::driver::state::interrupt::{Interrupted, bounded};
use crate::driver::state::reply;
use crate::error::Failure;
use crate::limits;
use crate::state_machine::picker::EndpointId;
use crate::upstream::attempt::{Answer, Attempt};
use crate::wire::status::{Code, Status};

/// Ends a call that was cut short.
pub(in crate::driver) fn cut_short(call: &mut Call, cut: Interrupted) -> Code {
    match cut {
        Interrupted::ClientGone | Interrupted::Drain => Code::Cancelled,
        Interrupted::Deadline => {
            reply::trailers_only(&mut call.respond, &reply::deadline_exceeded())
        }
    }
}

/// What one attempt on the serving endpoint gave.
pub(in crate::driver) enum Plain {
    Answered(Answer),
    Cut(Interrupted),
    /// Not enough.
    Begun(Begun),
}

/// Asks the serving endpoint, if it is there.
pub(in crate::driver) async fn plain(call: &mut Call, request: &[Bytes]) -> Plain {
    let Some(conn) = call.ctx.pool.ready() else {
        return Plain::Begun(Begun::Nothing);
    };
    let sent = read(call, request).send(&conn);
    let mut attempt = match sent {
        Ok(attempt) => attempt,
        Err(failure) => return failed(conn.endpoint(), Err(failure)),
    };
    match wait(call, &mut attempt).await {
        Ok(Ok(answer)) if !answer.is_unavailable() => Plain::Answered(answer),
        Ok(result) => failed(attempt.endpoint(), result),
        Err(NoAnswer::Silent) => Plain::Begun(Begun::Silent(attempt)),
        Err(NoAnswer::Cut(cut)) => Plain::Cut(cut),
    }
}

fn failed(endpoint: EndpointId, result: Result<Answer, Failure>) -> Plain {
    Plain::Begun(Begun::Failed(endpoint, result))
}

fn read<'a>(call: &'a Call, request: &'a [Bytes]) -> Read<'a> {
    Read {
        ctx: &call.ctx,
        head: &call.head,
        deadline: call.deadline,
        request,
        untranslated: false,
    }
}

#[derive(Clone, Copy)]
enum NoAnswer {
    Silent,
    Cut(Interrupted),
}

/// Waits for the answer until it counts as silent, or the deadline is over, or the client leaves.
async fn wait(call: &mut Call, attempt: &mut Attempt) -> Result<Result<Answer, Failure>, NoAnswer> {
    let silent = Instant::now() + limits::SILENT_READ;
    let (until, over) = match call.deadline {
        Some(deadline) if deadline <= silent => (deadline, NoAnswer::Cut(Interrupted::Deadline)),
        _ => (silent, NoAnswer::Silent),
    };
    let mut timer = call.ctx.timers.at(Some(until));
    poll_fn(|cx| {
        if let Poll::Ready(answered) = attempt.poll(cx) {
            return Poll::Ready(Ok(answered));
        }
        if call.respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(NoAnswer::Cut(Interrupted::ClientGone)));
        }
        ready!(timer.poll(cx));
        Poll::Ready(Err(over))
    })
    .await
}

/// Goes on where one attempt was not enough.
pub(in crate::driver) async fn second_chances(
    call: &mut Call,
    request: &[Bytes],
    begun: Begun,
) -> Result<Result<Answer, Status>, Interrupted> {
    let read = Read {
        ctx: &call.ctx,
        head: &call.head,
        deadline: call.deadline,
        request,
        untranslated: false,
    };
    let timer = call.ctx.timers.at(call.deadline);
    let respond = &mut call.respond;
    let mut fetch = pin!(read.fetch(begun));
    bounded(timer, None, |cx| {
        if let Poll::Ready(answered) = fetch.as_mut().poll(cx) {
            return Poll::Ready(Ok(answered));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await
}
