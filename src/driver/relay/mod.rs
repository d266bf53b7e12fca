//! Relay: driver of every call that needs no special handling.
//!
//! It passes messages in both directions as they arrive, with back-pressure (P1, P2, P4). It sends
//! a call again only if etcd provably did not process it (E2). `request_stream` is the direction
//! towards etcd, `response_stream` the direction towards the client. `translation` translates the
//! keys of both in a namespace.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use http::Response;
use tokio::time::{Instant, sleep};

use crate::call_log::finished_call::ResponseSource;
use crate::driver::call::{Call, while_call_open};
use crate::driver::relay::cache_invalidation::PendingWrite;
use crate::driver::relay::request_stream::RequestStream;
use crate::driver::relay::response_observer::ResponseObserver;
use crate::driver::relay::response_stream::{ResponseStream, ResponseStreamError};
use crate::driver::state::interrupt::{Interrupted, until_interrupted};
use crate::driver::state::reply;
use crate::error::{Failure, Progress};
use crate::limits;
use crate::net::pump::PumpEnd;
use crate::state_machine::picker::TriedEndpoints;
use crate::state_machine::retry::{RetryVerdict, Situation, verdict};
use crate::upstream::attempt;
use crate::upstream::call_sample::CallSample;
use crate::upstream::conn::{Conn, OpenedCall};
use crate::upstream::failure;
use crate::wire::status::{Code, Status};
use end_of_stream::{abort_stream, finish_stream};

pub(super) mod cache_invalidation;
pub(super) mod end_of_stream;
pub(super) mod replay_buffer;
mod request_message;
pub(super) mod request_stream;
pub(super) mod response_observer;
pub(super) mod response_stream;
mod translation;
pub(super) mod unary_response;

/// Relays a call of which `received` has been read already.
pub(super) async fn serve(call: &mut Call, received: Vec<Bytes>) -> Code {
    let mut request_stream = RequestStream::new(call, received);
    let mut write = PendingWrite::new(call);
    let opened = open(call, &mut request_stream).await;
    if let Some(write) = &mut write {
        write.set_touched(call, || request_stream.sent_chunks());
        if opened.is_err() && request_stream.may_be_processed() {
            write.outcome_unknown(&call.ctx);
        }
    }
    match opened {
        Ok((opened_call, response)) => {
            relay_response(call, request_stream, opened_call, response, write).await
        }
        Err(OpenError::Status(status)) => {
            // The contacted endpoint has sent no response.
            call.set_source(ResponseSource::Proxy);
            reply::trailers_only(&mut call.respond, &status)
        }
        Err(OpenError::ClientGone) => Code::Cancelled,
    }
}

/// Reason why etcd sends no response.
enum OpenError {
    Status(Status),
    ClientGone,
}

impl From<Interrupted> for OpenError {
    fn from(interrupted: Interrupted) -> OpenError {
        match interrupted {
            Interrupted::ClientGone => OpenError::ClientGone,
            Interrupted::Deadline => OpenError::Status(reply::deadline_exceeded()),
            Interrupted::Drain => OpenError::Status(reply::shutting_down()),
        }
    }
}

/// Sends the call until a response starts. Sends it again where the retry rules allow that (E2).
async fn open(
    call: &mut Call,
    request_stream: &mut RequestStream,
) -> Result<(OpenedCall, Response<RecvStream>), OpenError> {
    let retry_until = Instant::now() + limits::WAIT_FOR_ENDPOINT;
    let mut tried = TriedEndpoints::default();
    loop {
        let Some(conn) = upstream_connection(call, tried, retry_until).await? else {
            tried = TriedEndpoints::default();
            continue;
        };
        tried.add(conn.endpoint());
        let failure = match attempt(call, request_stream, &conn).await? {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        if failure.progress != Progress::Sent {
            request_stream.mark_unprocessed();
        }
        let situation = Situation {
            read: false,
            replayable: request_stream.is_replayable(),
            answered: false,
            untried_endpoint: call.ctx.pool.endpoints().pick_other(tried).is_some(),
            requires_leader: attempt::requires_leader(&call.head.headers),
            time_left: Instant::now() < retry_until,
        };
        match call.ctx.count_verdict(verdict(&failure, situation)) {
            RetryVerdict::Return => {
                return Err(OpenError::Status(reply::failure_status(
                    &failure,
                    call.deadline,
                )));
            }
            RetryVerdict::Again => {}
            RetryVerdict::AfterPause => {
                tried = TriedEndpoints::default();
                let mut pause = pin!(sleep(limits::READ_ROUND_PAUSE));
                while_call_open(call, |cx| pause.as_mut().poll(cx)).await?;
            }
        }
        call.ctx.counters().retries.inc();
        request_stream.rewind(&mut call.body);
    }
}

/// Returns a connection for the next attempt, or `None` if no untried endpoint can be reached.
async fn upstream_connection(
    call: &mut Call,
    tried: TriedEndpoints,
    retry_until: Instant,
) -> Result<Option<Rc<Conn>>, OpenError> {
    if tried.is_empty()
        && let Some(conn) = call.ctx.pool.ready()
    {
        return Ok(Some(conn));
    }
    let pool = call.ctx.pool.clone();
    // Boxed: most calls find a connection ready, and the future of every call would contain this
    // one.
    let mut dial = Box::pin(async move {
        if tried.is_empty() {
            pool.connection(retry_until).await.map(Some)
        } else {
            Ok(pool.connection_to_other(tried, retry_until).await)
        }
    });
    let conn = Box::pin(while_call_open(call, |cx| dial.as_mut().poll(cx))).await?;
    conn.map_err(|failure| OpenError::Status(reply::failure_status(&failure, call.deadline)))
}

/// Makes one attempt, up to the head of etcd's response.
async fn attempt(
    call: &mut Call,
    request_stream: &mut RequestStream,
    conn: &Rc<Conn>,
) -> Result<Result<(OpenedCall, Response<RecvStream>), Failure>, OpenError> {
    let head = attempt::head(conn.target(), &call.head, call.time_left());
    let mut opened_call = match conn.open(head, false) {
        Ok(opened_call) => opened_call,
        Err(failure) => return Ok(Err(failure)),
    };
    request_stream.start_attempt();
    if let Some(log) = &call.log {
        log.set_upstream(conn);
    }
    let sample = call.is_short().then(|| CallSample::start(conn)).flatten();
    let drain = (!call.is_unary()).then(|| call.ctx.drain.clone());
    let timer = call.deadline_timer();
    let Call { body, respond, .. } = call;
    let result = until_interrupted(timer, drain.as_ref(), |cx| {
        let uploaded = request_stream.poll(cx, body, &mut opened_call.body);
        if let Poll::Ready(Err(error)) = uploaded {
            return Poll::Ready(error.into_status().map(AttemptResult::Refused));
        }
        if let Poll::Ready(response) = Pin::new(&mut opened_call.response).poll(cx) {
            return Poll::Ready(Ok(AttemptResult::Response(response)));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await?;
    if let (Some(sample), AttemptResult::Response(response)) = (sample, &result) {
        let status = response.as_ref().map(|r| Status::from_headers(r.headers()));
        sample.finish(status.is_ok_and(|s| s.is_none_or(|s| s.code != Code::Unavailable)));
    }
    match result {
        AttemptResult::Response(Ok(response)) => Ok(Ok((opened_call, response))),
        AttemptResult::Response(Err(e)) => Ok(Err(failure::from_h2(&e))),
        AttemptResult::Refused(status) => Err(OpenError::Status(status)),
    }
}

enum AttemptResult {
    Response(Result<Response<RecvStream>, h2::Error>),
    Refused(Status),
}

/// Relays a response that has started, and the rest of the request beside it.
async fn relay_response(
    call: &mut Call,
    mut request_stream: RequestStream,
    mut opened_call: OpenedCall,
    response: Response<RecvStream>,
    write: Option<PendingWrite>,
) -> Code {
    let observer = ResponseObserver::new(call, || request_stream.sent_chunks()).with_write(write);
    request_stream.discard_replay();
    let (head, mut from) = response.into_parts();
    let end = from.is_end_stream();
    let code = Status::from_headers(&head.headers).map_or(Code::Unknown, |s| s.code);
    if end {
        observer.finished(&call.ctx, code);
    }
    let Ok(mut to) = call
        .respond
        .send_response(Response::from_parts(head, ()), end)
    else {
        observer.aborted(&call.ctx);
        return Code::Cancelled;
    };
    if end {
        return code;
    }
    let unary = call.is_unary();
    let mut out = ResponseStream::new(call, unary, observer)
        .with_translation(call.method)
        .with_counters(call);
    let drain = (!unary).then(|| call.ctx.drain.clone());
    let timer = call.deadline_timer();
    let body = &mut call.body;
    let ended = until_interrupted(timer, drain.as_ref(), |cx| {
        if let Poll::Ready(ended) = out.poll(cx, &mut from, &mut to) {
            return Poll::Ready(Ok(RelayEnd::Response(ended)));
        }
        if let Poll::Ready(Err(error)) = request_stream.poll(cx, body, &mut opened_call.body) {
            return Poll::Ready(error.into_status().map(RelayEnd::Refused));
        }
        to.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await;
    match &ended {
        Ok(RelayEnd::Response(Ok(end))) => out
            .observer()
            .finished(&call.ctx, end_of_stream::end_code(end)),
        _ => out.observer().aborted(&call.ctx),
    }
    match ended {
        Ok(RelayEnd::Response(Ok(end))) => finish_stream(&mut to, end),
        Ok(RelayEnd::Response(Err(error))) => abort_stream(call, &mut to, error),
        Ok(RelayEnd::Refused(status)) => reply::trailers(&mut to, &status),
        Err(interrupted) => reply::interrupted(&mut to, interrupted),
    }
}

enum RelayEnd {
    Response(Result<PumpEnd, ResponseStreamError>),
    Refused(Status),
}
