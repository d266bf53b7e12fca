//! A client's unary read: gathered whole, asked of the serving endpoint, answered in one piece.
//!
//! The plain path — request here, connection up, answer soon and small — keeps little and waits
//! on one timer. All that is rare is boxed: every read's future would carry it.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use tokio::time::timeout;

use crate::limits;
use crate::metrics::Limit;
use crate::net::pump::{Pump, PumpError};
use crate::service::alone::{Plain, cut_short, plain};
use crate::service::bounds::{Cut, bounded};
use crate::service::call::Call;
use crate::service::kept::Kept;
use crate::service::pass::pass;
use crate::service::reads::kept::{is_behind, keep};
use crate::service::reads::plan::{Plan, plan};
use crate::service::reads::waiting::{self, kept as kept_answer};
use crate::service::reply;
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
    let (asking, flight) = match plan(call, &request) {
        Plan::Given(code) => return Ok(code),
        Plan::Here(answer) => return Ok(Box::pin(pass(call, kept_answer(answer))).await),
        Plan::Waits(waits) => return Ok(Box::pin(waiting::serve(call, request, waits)).await),
        Plan::Plain(asking) => (asking, None),
        Plan::Alone(asking, flight) => (Some(asking), Some(flight)),
    };
    let came = plain(call, &request).await;
    match came {
        Plain::Answered(answer) => match &asking {
            Some(asking) if is_behind(call, asking, &answer) => {
                Ok(Box::pin(waiting::came(call, Some(asking), answer, flight)).await)
            }
            asking => {
                let kept = asking.as_ref().is_some_and(|a| keep(&call.ctx, a, &answer));
                // Whoever waits for it to come back goes now, however long it takes to be read.
                if let Some(flight) = flight {
                    flight.landed(kept);
                }
                Ok(pass(call, answer).await)
            }
        },
        Plain::Cut(cut) => Ok(cut_short(call, cut)),
        Plain::Begun(begun) => {
            Ok(Box::pin(waiting::on(call, &request, asking, begun, flight)).await)
        }
    }
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
