//! A client's unary read: gathered whole, asked of the serving endpoint, answered in one piece.
//!
//! The plain path — request here, connection up, answer soon and small — keeps little and waits
//! on one timer. All that is rare is boxed: every read's future would carry it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use tokio::time::{Instant, timeout};

use crate::error::Failure;
use crate::limits;
use crate::metrics::Limit;
use crate::net::pump::{Pump, PumpError};
use crate::service::bounds::{Cut, bounded};
use crate::service::call::Call;
use crate::service::fetch::{Begun, Read};
use crate::service::kept::Kept;
use crate::service::pass::pass;
use crate::service::reply;
use crate::upstream::attempt::{Answer, Attempt};
use crate::wire::status::{Code, Status};

/// Serves a client's read. Gives back what was received when the request is too large to be
/// gathered and must be relayed.
pub(super) async fn serve(call: &mut Call) -> Result<Code, Vec<Bytes>> {
    let mut gather = Gather::new(call.ctx.max.send);
    let gathered = match poll_fn(|cx| Poll::Ready(gather.poll(cx, &mut call.body))).await {
        Poll::Ready(gathered) => gathered,
        Poll::Pending => Box::pin(gather_slowly(call, &mut gather)).await,
    };
    let request = match gathered {
        Ok(()) => gather.kept.into_chunks(),
        Err(NotGathered::Larger) => return Err(gather.kept.into_chunks()),
        Err(NotGathered::TooLarge { len, max }) => {
            call.ctx.count().hit(Limit::SendBytes);
            let status = reply::send_too_large(len, max);
            return Ok(reply::trailers_only(&mut call.respond, &status));
        }
        Err(NotGathered::Refused(status)) => {
            return Ok(reply::trailers_only(&mut call.respond, &status));
        }
        Err(NotGathered::ClientGone) => return Ok(Code::Cancelled),
    };
    let begun = match plain(call, &request).await {
        Plain::Answered(answer) => return Ok(pass(call, answer).await),
        Plain::Cut(cut) => return Ok(cut_short(call, cut)),
        Plain::Begun(begun) => begun,
    };
    Ok(
        match Box::pin(second_chances(call, &request, begun)).await {
            Ok(Ok(answer)) => pass(call, answer).await,
            Ok(Err(status)) => reply::trailers_only(&mut call.respond, &status),
            Err(cut) => cut_short(call, cut),
        },
    )
}

fn cut_short(call: &mut Call, cut: Cut) -> Code {
    match cut {
        Cut::ClientGone | Cut::Drain => Code::Cancelled,
        Cut::Deadline => reply::trailers_only(&mut call.respond, &reply::deadline_exceeded()),
    }
}

/// What one attempt on the serving endpoint gave.
enum Plain {
    Answered(Answer),
    Cut(Cut),
    /// Not enough.
    Begun(Begun),
}

async fn plain(call: &mut Call, request: &[Bytes]) -> Plain {
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

fn failed(endpoint: usize, result: Result<Answer, Failure>) -> Plain {
    Plain::Begun(Begun::Failed(endpoint, result))
}

fn read<'a>(call: &'a Call, request: &'a [Bytes]) -> Read<'a> {
    Read {
        ctx: &call.ctx,
        head: &call.head,
        deadline: call.deadline,
        request,
    }
}

#[derive(Clone, Copy)]
enum NoAnswer {
    Silent,
    Cut(Cut),
}

/// Waits for the answer until it counts as silent, or the deadline is over, or the client leaves.
async fn wait(call: &mut Call, attempt: &mut Attempt) -> Result<Result<Answer, Failure>, NoAnswer> {
    let silent = Instant::now() + limits::SILENT_READ;
    let (until, over) = match call.deadline {
        Some(deadline) if deadline <= silent => (deadline, NoAnswer::Cut(Cut::Deadline)),
        _ => (silent, NoAnswer::Silent),
    };
    let mut timer = call.ctx.timers.at(Some(until));
    poll_fn(|cx| {
        if let Poll::Ready(answered) = attempt.poll(cx) {
            return Poll::Ready(Ok(answered));
        }
        if call.respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(NoAnswer::Cut(Cut::ClientGone)));
        }
        ready!(timer.poll(cx));
        Poll::Ready(Err(over))
    })
    .await
}

async fn second_chances(
    call: &mut Call,
    request: &[Bytes],
    begun: Begun,
) -> Result<Result<Answer, Status>, Cut> {
    let read = Read {
        ctx: &call.ctx,
        head: &call.head,
        deadline: call.deadline,
        request,
    };
    let timer = call.ctx.timers.at(call.deadline);
    let respond = &mut call.respond;
    let mut fetch = pin!(read.fetch(begun));
    bounded(timer, None, |cx| {
        if let Poll::Ready(answered) = fetch.as_mut().poll(cx) {
            return Poll::Ready(Ok(answered));
        }
        respond.poll_reset(cx).map(|_| Err(Cut::ClientGone))
    })
    .await
}

/// Collects a small request.
struct Gather {
    kept: Kept,
    /// Only its message limit is used.
    limit: Pump,
}

enum NotGathered {
    /// More than is gathered; what came so far is kept, its window given back.
    Larger,
    /// Its message is above `--max-send-bytes`.
    TooLarge {
        len: u64,
        max: u64,
    },
    Refused(Status),
    ClientGone,
}

impl Gather {
    fn new(max: u64) -> Gather {
        Gather {
            kept: Kept::default(),
            limit: Pump::new(max),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RecvStream,
    ) -> Poll<Result<(), NotGathered>> {
        loop {
            if self.kept.bytes() > limits::GATHER_BYTES {
                // An error means that the stream is gone, which the relay finds out.
                let _ = body.flow_control().release_capacity(self.kept.bytes());
                return Poll::Ready(Err(NotGathered::Larger));
            }
            match ready!(body.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    if let Err(PumpError::TooLarge { len, max }) = self.limit.scan(&chunk) {
                        return Poll::Ready(Err(NotGathered::TooLarge { len, max }));
                    }
                    self.kept.push(chunk);
                }
                Some(Err(_)) => return Poll::Ready(Err(NotGathered::ClientGone)),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// For a request that did not arrive at once.
async fn gather_slowly(call: &mut Call, gather: &mut Gather) -> Result<(), NotGathered> {
    let timer = call.timer();
    let Call { body, respond, .. } = call;
    let arrived = bounded(timer, None, |cx| {
        if let Poll::Ready(gathered) = gather.poll(cx, body) {
            return Poll::Ready(Ok(gathered));
        }
        respond.poll_reset(cx).map(|_| Err(Cut::ClientGone))
    });
    match timeout(limits::REQUEST_TIME, arrived).await {
        Ok(Ok(gathered)) => gathered,
        Ok(Err(Cut::Deadline)) => Err(NotGathered::Refused(reply::deadline_exceeded())),
        Ok(Err(Cut::ClientGone | Cut::Drain)) => Err(NotGathered::ClientGone),
        Err(_) => {
            call.ctx.count().hit(Limit::SlowRequest);
            Err(NotGathered::Refused(reply::slow_request()))
        }
    }
}
