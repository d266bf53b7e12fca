//! Driver of unary reads: buffers the request, decides how to read, and sends the response.
//!
//! The fast path needs one attempt and one timer: the request has arrived, the connection is up,
//! and the response arrives soon and is small. All rare paths are boxed, because the future of
//! every read would contain them.

use bytes::Bytes;

use crate::driver::call::Call;
use crate::driver::call::request_body::{RequestBody, read_request_body};
use crate::driver::etcd::first_attempt::{FirstAttempt, end_interrupted, first_attempt};
use crate::driver::health;
use crate::driver::reads::plan::{Plan, plan};
use crate::driver::reads::store::{is_behind_connection, store_response};
use crate::driver::reads::waiting::{self, from_cache};
use crate::driver::relay::unary_response::send_unary_response;
use crate::wire::status::Code;

/// Serves a unary read. Returns the received chunks if the request is too large to buffer and must
/// be relayed.
pub(super) async fn serve(call: &mut Call) -> Result<Code, Vec<Bytes>> {
    let request = match read_request_body(call).await {
        RequestBody::Complete(request) => request,
        RequestBody::Partial(received) => return Err(received),
        RequestBody::Ended(code) => return Ok(code),
    };
    let (read, in_flight) = match plan(call, &request) {
        Plan::Sent(code) => return Ok(code),
        Plan::Respond(answer) => {
            return Ok(Box::pin(send_unary_response(call, from_cache(answer))).await);
        }
        Plan::HealthCheck => return Ok(Box::pin(health::serve_check(call, request)).await),
        Plan::Wait(wait) => return Ok(Box::pin(waiting::serve(call, request, wait)).await),
        Plan::Fetch(read) => (read, None),
        Plan::FetchInFlight(read, in_flight) => (Some(read), Some(in_flight)),
    };
    let attempt = first_attempt(call, &request).await;
    match attempt {
        FirstAttempt::Done(answer) => match &read {
            Some(read) if is_behind_connection(call, read, &answer) => {
                Ok(Box::pin(waiting::respond(call, Some(read), answer, in_flight)).await)
            }
            read => {
                let cached = read
                    .as_ref()
                    .is_some_and(|read| store_response(&call.ctx, read, &answer));
                // The next shared read starts now, however slowly this client reads its response.
                if let Some(in_flight) = in_flight {
                    in_flight.complete(cached);
                }
                Ok(send_unary_response(call, answer).await)
            }
        },
        FirstAttempt::Interrupted(interrupted) => Ok(end_interrupted(call, interrupted)),
        FirstAttempt::Incomplete(prior) => Ok(Box::pin(waiting::finish_fetch(
            call, &request, read, prior, in_flight,
        ))
        .await),
    }
}
