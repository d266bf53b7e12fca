//! Reads that wait: for a shared read, for a permission check, or for the client to read.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::slice;

use bytes::Bytes;
use http::Response;

use crate::call_log::finished_call::ResponseSource;
use crate::driver::WorkerContext;
use crate::driver::call::{Call, while_call_open};
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::first_attempt::{
    FirstAttempt, end_interrupted, fetch_with_retries, first_attempt,
};
use crate::driver::etcd::hedged_read::PriorAttempt;
use crate::driver::reads::coalesce::{InFlight, Wake, release_when_silent};
use crate::driver::reads::lookup::{LookupResult, serve_cached};
use crate::driver::reads::plan::WaitFor;
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::{is_behind_connection, record_permission, store_response};
use crate::driver::relay::unary_response::send_unary_response;
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::reads::SharedResponse;
use crate::driver::state::reply;
use crate::upstream::attempt::{BufferedResponse, Rest};
use crate::upstream::conn::BufferedBytes;
use crate::wire::status::{Code, Status};

/// Serves a waiting read to its end. Many reads may wait at once, so the later steps are boxed: the
/// future of every waiting read would contain them.
pub(in crate::driver) async fn serve(
    call: &mut Call,
    request: Vec<Bytes>,
    wait: Box<(ReadRequest, WaitFor)>,
) -> Code {
    let (read, wait) = *wait;
    match wait {
        WaitFor::Client(answer) => {
            call.set_source(ResponseSource::Cache);
            Box::pin(send_unary_response(call, from_cache(answer))).await
        }
        WaitFor::Permission(permission) => {
            Box::pin(check_permission_first(call, &request, read, permission)).await
        }
        WaitFor::SharedRead(mut waiter) => {
            let wake = while_call_open(call, |cx| waiter.poll(cx)).await;
            drop(waiter);
            match wake {
                Ok(Wake::Send(in_flight)) => {
                    Box::pin(fetch(call, &request, read, Some(in_flight))).await
                }
                Ok(Wake::SendAlone) => Box::pin(fetch(call, &request, read, None)).await,
                Ok(Wake::Lookup) => Box::pin(retry_lookup(call, &request, read)).await,
                Ok(Wake::Response(answer)) => Box::pin(respond_shared(call, &read, &answer)).await,
                Err(interrupted) => end_interrupted(call, interrupted),
            }
        }
    }
}

/// Checks with etcd whether the client may receive the cached response (R4).
async fn check_permission_first(
    call: &mut Call,
    request: &[Bytes],
    read: ReadRequest,
    permission: PermissionKey,
) -> Code {
    match check_permission(call, permission).await {
        Ok(true) => retry_lookup(call, request, read).await,
        // The client gets etcd's response to the read itself, usually PERMISSION_DENIED.
        Ok(false) => fetch(call, request, read, None).await,
        Err(interrupted) => end_interrupted(call, interrupted),
    }
}

/// Responds with the shared response.
async fn respond_shared(
    call: &mut Call,
    read: &ReadRequest,
    answer: &Rc<Result<SharedResponse, Status>>,
) -> Code {
    match &**answer {
        Ok(response) => {
            let answer = from_shared(response.clone());
            call.set_source(ResponseSource::Shared);
            if is_behind_connection(call, read, &answer) {
                return retry_stale(call, read, answer).await;
            }
            send_unary_response(call, answer).await
        }
        Err(status) => reply::trailers_only(&mut call.respond, status),
    }
}

/// Serves the read from the cache if that is possible now, else from etcd.
async fn retry_lookup(call: &mut Call, request: &[Bytes], read: ReadRequest) -> Code {
    let read = read.restarted(&call.ctx);
    match serve_cached(call, &read) {
        LookupResult::Sent => Code::Ok,
        LookupResult::Large(answer) => {
            call.set_source(ResponseSource::Cache);
            send_unary_response(call, from_cache(answer)).await
        }
        LookupResult::NeedsPermission(_) | LookupResult::Miss => {
            fetch(call, request, read, None).await
        }
    }
}

/// Reads from etcd, for this client only.
async fn fetch(
    call: &mut Call,
    request: &[Bytes],
    read: ReadRequest,
    in_flight: Option<InFlight>,
) -> Code {
    let read = read.restarted(&call.ctx);
    match first_attempt(call, request).await {
        FirstAttempt::Done(answer) => respond(call, Some(&read), answer, in_flight).await,
        FirstAttempt::Interrupted(interrupted) => end_interrupted(call, interrupted),
        FirstAttempt::Incomplete(prior) => {
            finish_fetch(call, request, Some(read), prior, in_flight).await
        }
    }
}

/// Continues a read after an insufficient first attempt: it was silent, failed or was not sent.
pub(in crate::driver) async fn finish_fetch(
    call: &mut Call,
    request: &[Bytes],
    read: Option<ReadRequest>,
    prior: PriorAttempt,
    mut in_flight: Option<InFlight>,
) -> Code {
    let ctx = call.ctx.clone();
    if let PriorAttempt::Silent(_) = prior {
        in_flight = None;
    }
    let answered = {
        let attempts = pin!(fetch_with_retries(call, request, prior));
        release_when_silent(&ctx, &mut in_flight, attempts).await
    };
    match answered {
        Ok(Ok(answer)) => respond(call, read.as_ref(), answer, in_flight).await,
        Ok(Err(status)) => reply::trailers_only(&mut call.respond, &status),
        Err(interrupted) => end_interrupted(call, interrupted),
    }
}

/// Responds with a response of etcd. `read` is `None` if the proxy does not understand the request.
pub(in crate::driver) async fn respond(
    call: &mut Call,
    read: Option<&ReadRequest>,
    answer: BufferedResponse,
    in_flight: Option<InFlight>,
) -> Code {
    if let Some(read) = read {
        if is_behind_connection(call, read, &answer) {
            drop(in_flight);
            return retry_stale(call, read, answer).await;
        }
        let cached = store_response(&call.ctx, read, &answer);
        // The next shared read starts now, however slowly this client reads its response.
        if let Some(in_flight) = in_flight {
            in_flight.complete(cached);
        }
    }
    send_unary_response(call, answer).await
}

/// Repeats a stale read as a linearizable read. Another member could be behind as well; a
/// linearizable response is at least as new as every response before it (R5).
async fn retry_stale(call: &mut Call, read: &ReadRequest, stale: BufferedResponse) -> Code {
    let Some((read, request)) = read.linearizable(&call.ctx) else {
        return send_unary_response(call, stale).await;
    };
    drop(stale);
    call.ctx.counters().reads.stale_retried.inc();
    // A linearizable response is never stale, so there is no second retry.
    Box::pin(fetch(call, &[request], read, None)).await
}

/// Checks with etcd whether the client may read, with the client's own token.
async fn check_permission(call: &mut Call, permission: PermissionKey) -> Result<bool, Interrupted> {
    let ctx = call.ctx.clone();
    let mut permitted = pin!(query_permission(&ctx, permission));
    while_call_open(call, |cx| permitted.as_mut().poll(cx)).await
}

async fn query_permission(ctx: &Rc<WorkerContext>, permission: PermissionKey) -> bool {
    let (started, flush_count) = (
        std::time::Instant::now(),
        ctx.process.read_cache.flush_count(),
    );
    let (credential, range) = &permission;
    let answer =
        etcd_client::noop_txn(ctx, credential.as_ref(), slice::from_ref(range), true).await;
    let permitted = answer.is_ok_and(|answer| answer.code() == Code::Ok);
    if permitted {
        record_permission(ctx, permission, started, flush_count);
    }
    permitted
}

/// Converts a cached response into a response of etcd.
pub(in crate::driver) fn from_cache(answer: Bytes) -> BufferedResponse {
    BufferedResponse {
        head: reply::head().into_parts().0,
        buffered: BufferedBytes::uncounted(answer.len()),
        chunks: VecDeque::from([answer]),
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
