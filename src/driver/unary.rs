//! Driver of unary reads: buffers the request, decides how to read, and sends the response.
//!
//! [`serve`] is a loop: decide on the next step, carry it out, decide again. The response to the
//! client is sent behind the loop, and nowhere else.
//!
//! The fast path needs one attempt and one timer: the request has arrived, the connection is up,
//! and the response arrives soon and is small. All rare paths are boxed, because the future of
//! every read would contain them.

use std::collections::VecDeque;

use bytes::Bytes;
use http::Response;

use crate::call_log::finished_call::ResponseSource;
use crate::driver::call::Call;
use crate::driver::call::request_body::{RequestBody, read_request_body};
use crate::driver::call::request_compression::{Rejection, decompress_request};
use crate::driver::etcd::first_attempt::{FirstAttempt, end_interrupted, first_attempt};
use crate::driver::health;
use crate::driver::reads::decision::{ReadDecision, decide, decide_after_wait};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::{is_behind_connection, store_response};
use crate::driver::reads::waiting::{check_permission, finish_fetch, join};
use crate::driver::relay::unary_response::send_unary_response;
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::reads::SharedResponse;
use crate::driver::state::reply;
use crate::limits;
use crate::upstream::attempt::{BufferedResponse, Rest};
use crate::upstream::conn::BufferedBytes;
use crate::wire::compression::Encoding;
use crate::wire::status::{Code, Status};

/// End of a read: the response to its client.
#[expect(
    clippy::large_enum_variant,
    reason = "a local value of each read: a box would cost an allocation"
)]
enum ReadEnd {
    /// A complete, framed message, and status OK.
    Message(Bytes),
    /// A response of etcd, or a response in that form.
    Response(BufferedResponse),
    /// An error of the proxy.
    Error(Status),
    /// The interruption of the call.
    Interrupted(Interrupted),
}

/// Serves a unary read. Returns the received chunks if the request is too large to buffer and must
/// be relayed.
pub(super) async fn serve(call: &mut Call) -> Result<Code, Vec<Bytes>> {
    let mut request = match read_request_body(call).await {
        RequestBody::Complete(request) => request,
        RequestBody::Partial(received) => return Err(received),
        RequestBody::Ended(code) => return Ok(code),
    };
    let encoding = match decompress_request(call, &mut request) {
        Ok(encoding) => encoding,
        Err(Rejection::TooLargeToBuffer) => return Err(request),
        Err(Rejection::Refused(status)) => {
            return Ok(reply::trailers_only(&mut call.respond, &status));
        }
    };
    let mut read = ReadRequest::parse(call, &request);
    let mut decision = decide(call, read.as_ref());
    let end = loop {
        decision = match decision {
            ReadDecision::Hit(message) => {
                call.set_source(ResponseSource::Cache);
                break ReadEnd::Message(message);
            }
            ReadDecision::OwnResponse(message) => break ReadEnd::Response(buffered(message)),
            ReadDecision::HealthCheck => {
                break match Box::pin(health::check(call, request)).await {
                    Ok(Ok(message)) => ReadEnd::Message(message),
                    Ok(Err(status)) => ReadEnd::Error(status),
                    Err(interrupted) => ReadEnd::Interrupted(interrupted),
                };
            }
            ReadDecision::Join(waiter) => {
                let woken = Box::pin(join(call, waiter)).await;
                decide_after_wait(call, read.as_mut(), woken)
            }
            ReadDecision::CheckPermission(permission) => {
                let woken = Box::pin(check_permission(call, permission)).await;
                decide_after_wait(call, read.as_mut(), woken)
            }
            ReadDecision::UseShared(result) => match &*result {
                Ok(shared) => {
                    call.set_source(ResponseSource::Shared);
                    let response = from_shared(shared.clone());
                    if !replace_if_stale(call, &mut read, &mut request, &response) {
                        break ReadEnd::Response(response);
                    }
                    ReadDecision::Fetch(None)
                }
                Err(status) => break ReadEnd::Error(status.clone()),
            },
            ReadDecision::Fetch(mut in_flight) => {
                let response = match first_attempt(call, &request).await {
                    FirstAttempt::Done(response) => response,
                    FirstAttempt::Interrupted(interrupted) => {
                        break ReadEnd::Interrupted(interrupted);
                    }
                    FirstAttempt::Incomplete(prior) => {
                        let attempts = finish_fetch(call, &request, prior, &mut in_flight);
                        match Box::pin(attempts).await {
                            Ok(Ok(response)) => response,
                            Ok(Err(status)) => break ReadEnd::Error(status),
                            Err(interrupted) => break ReadEnd::Interrupted(interrupted),
                        }
                    }
                };
                if !replace_if_stale(call, &mut read, &mut request, &response) {
                    let store = |read| store_response(&call.ctx, read, &response);
                    let cached = read.as_ref().is_some_and(store);
                    // The next shared read starts now, however slowly this client reads its
                    // response.
                    if let Some(in_flight) = in_flight {
                        in_flight.complete(cached);
                    }
                    break ReadEnd::Response(response);
                }
                ReadDecision::Fetch(None)
            }
            ReadDecision::End(interrupted) => break ReadEnd::Interrupted(interrupted),
        };
    };
    let response = match end {
        ReadEnd::Message(message)
            if message.len() <= limits::FREE_SEND_BYTES && encoding == Encoding::Identity =>
        {
            call.send_response(message);
            return Ok(Code::Ok);
        }
        ReadEnd::Message(message) => buffered(message),
        ReadEnd::Response(response) => response,
        ReadEnd::Error(status) => return Ok(reply::trailers_only(&mut call.respond, &status)),
        ReadEnd::Interrupted(interrupted) => return Ok(end_interrupted(call, interrupted)),
    };
    Ok(send_unary_response(call, response, encoding).await)
}

/// If a response is stale for its client, replaces the read by a linearizable one. Another member
/// could be behind as well; a linearizable response is at least as new as every response before it
/// (R5). It is never stale itself, so there is no second replacement.
fn replace_if_stale(
    call: &Call,
    read: &mut Option<ReadRequest>,
    request: &mut Vec<Bytes>,
    response: &BufferedResponse,
) -> bool {
    let Some(stale) = read
        .as_mut()
        .filter(|read| is_behind_connection(call, read, response))
    else {
        return false;
    };
    let Some((linearizable, encoded)) = stale.linearizable(&call.ctx) else {
        return false;
    };
    call.ctx.counters().reads.stale_retried.inc();
    *stale = linearizable;
    *request = vec![encoded];
    true
}

/// Converts a complete, framed message into a response in the form of etcd's.
fn buffered(message: Bytes) -> BufferedResponse {
    BufferedResponse {
        head: reply::head().into_parts().0,
        buffered: BufferedBytes::uncounted(message.len()),
        chunks: VecDeque::from([message]),
        rest: Rest::End(Some(reply::ok_trailers())),
    }
}

/// Converts a shared response into a response of etcd.
fn from_shared(response: SharedResponse) -> BufferedResponse {
    let mut head = Response::new(());
    *head.status_mut() = response.status;
    *head.headers_mut() = response.headers;
    BufferedResponse {
        head: head.into_parts().0,
        buffered: BufferedBytes::uncounted(response.chunks.iter().map(Bytes::len).sum()),
        chunks: response.chunks.into(),
        rest: Rest::End(response.trailers),
    }
}
