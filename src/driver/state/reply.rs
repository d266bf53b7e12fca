//! The proxy's own answers: a gRPC status, with or without a response before it.

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, header};
use tokio::time::Instant;

use crate::driver::state::interrupt::Interrupted;
use crate::error::Failure;
use crate::limits;
use crate::net::payload::Payload;
use crate::upstream::failure;
use crate::wire::status::{Code, Status};

/// What etcd says to a stream that wants a leader where there is none.
pub(in crate::driver) const NO_LEADER: &str = "etcdserver: no leader";

/// As etcd begins an answer.
pub(in crate::driver) fn head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    head
}

/// As etcd ends one.
pub(in crate::driver) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    Status::new(Code::Ok, "").write(&mut trailers);
    trailers
}

/// A small answer, framed, and everything at once. Errors mean that the client is gone.
pub(in crate::driver) fn whole(respond: &mut SendResponse<Payload>, answer: Bytes) {
    let Ok(mut to) = respond.send_response(head(), false) else {
        return;
    };
    let _ = to.send_data(answer.into(), false);
    let _ = to.send_trailers(ok_trailers());
}

/// Ends a call that has sent nothing yet: headers that are trailers too.
pub(in crate::driver) fn trailers_only(
    respond: &mut SendResponse<Payload>,
    status: &Status,
) -> Code {
    let mut response = head();
    status.write(response.headers_mut());
    // An error means that the client is gone.
    let _ = respond.send_response(response, true);
    status.code
}

/// Ends a call whose response has begun.
pub(in crate::driver) fn trailers(stream: &mut SendStream<Payload>, status: &Status) -> Code {
    let mut trailers = HeaderMap::new();
    status.write(&mut trailers);
    // An error means that the client is gone.
    let _ = stream.send_trailers(trailers);
    status.code
}

/// The client's deadline is over (P3); the text is etcd's and Go's.
pub(in crate::driver) fn deadline_exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// What is told of a failure. Once the client's deadline is over, that is it: etcd resets an
/// overdue stream by its own clock, which may be looked at a moment before ours (P3, E6).
pub(in crate::driver) fn lost(failure: &Failure, deadline: Option<Instant>) -> Status {
    match deadline {
        Some(deadline) if Instant::now() >= deadline => deadline_exceeded(),
        _ => failure::status(failure),
    }
}

/// A message towards etcd is too large (P6).
pub(in crate::driver) fn send_too_large(len: u64, max: u64) -> Status {
    let text = format!("trying to send message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

/// A message from etcd is too large (P6).
pub(in crate::driver) fn recv_too_large(len: u64, max: u64) -> Status {
    let text = format!("grpc: received message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

/// Large messages of streams that are not complete come to too much.
pub(in crate::driver) fn too_many_large() -> Status {
    let text = "etcd-edge: too many large requests in progress";
    Status::new(Code::ResourceExhausted, text)
}

/// Large answers that are not complete come to too much.
pub(in crate::driver) fn too_many_large_answers() -> Status {
    let text = "etcd-edge: too many large responses in progress";
    Status::new(Code::ResourceExhausted, text)
}

/// The process is to end, and this call has no end of its own (S2).
pub(in crate::driver) fn shutting_down() -> Status {
    Status::new(Code::Unavailable, "etcd-edge is shutting down")
}

/// No endpoint has a leader (W12), in etcd's words.
pub(in crate::driver) fn no_leader() -> Status {
    Status::new(Code::Unavailable, NO_LEADER)
}

/// A unary request that did not arrive in time.
pub(in crate::driver) fn slow_request() -> Status {
    let text = format!(
        "etcd-edge: request not complete within {:?}",
        limits::REQUEST_TIME
    );
    Status::new(Code::ResourceExhausted, text)
}

/// Ends a call whose response has begun and that was cut short.
pub(in crate::driver) fn cut(stream: &mut SendStream<Payload>, cut: Interrupted) -> Code {
    match cut {
        Interrupted::ClientGone => Code::Cancelled,
        Interrupted::Deadline => trailers(stream, &deadline_exceeded()),
        Interrupted::Drain => trailers(stream, &shutting_down()),
    }
}
