//! A client's unary read: gathered whole, asked of the serving endpoint, answered in one piece.
//!
//! The plain path — request here, connection up, answer soon and small — keeps little and waits
//! on one timer. All that is rare is boxed: every read's future would carry it.

use bytes::Bytes;

use crate::driver::call::Call;
use crate::driver::call::request_body::{Gathered, gather};
use crate::driver::etcd::first_attempt::{Plain, cut_short, plain};
use crate::driver::health;
use crate::driver::reads::plan::{Plan, plan};
use crate::driver::reads::store::{is_behind, keep};
use crate::driver::reads::waiting::{self, kept as kept_answer};
use crate::driver::relay::unary_response::pass;
use crate::wire::status::Code;

/// Serves a client's read. Gives back what was received when the request is too large to be
/// gathered and must be relayed.
pub(super) async fn serve(call: &mut Call) -> Result<Code, Vec<Bytes>> {
    let request = match gather(call).await {
        Gathered::Whole(request) => request,
        Gathered::Larger(received) => return Err(received),
        Gathered::Over(code) => return Ok(code),
    };
    let (asking, flight) = match plan(call, &request) {
        Plan::Given(code) => return Ok(code),
        Plan::Here(answer) => return Ok(Box::pin(pass(call, kept_answer(answer))).await),
        Plan::Health => return Ok(Box::pin(health::check(call, request)).await),
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
