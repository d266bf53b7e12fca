//! Responses of the proxy itself: gRPC statuses and small unary responses.

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

/// Message of etcd's status for a stream that requires a leader when there is none.
pub(in crate::driver) const NO_LEADER: &str = "etcdserver: no leader";

/// Returns the head of a response, equal to that of etcd.
pub(in crate::driver) fn head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    head
}

/// Returns the trailers of a successful response, equal to those of etcd.
pub(in crate::driver) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    Status::new(Code::Ok, "").write(&mut trailers);
    trailers
}

/// Sends a small, framed response and status OK. Errors mean that the client has left.
pub(in crate::driver) fn unary(respond: &mut SendResponse<Payload>, response: Bytes) {
    let Ok(mut to) = respond.send_response(head(), false) else {
        return;
    };
    let _ = to.send_data(response.into(), false);
    let _ = to.send_trailers(ok_trailers());
}

/// Ends a call before its response starts, with headers that are also trailers. Returns the code.
pub(in crate::driver) fn trailers_only(
    respond: &mut SendResponse<Payload>,
    status: &Status,
) -> Code {
    let mut response = head();
    status.write(response.headers_mut());
    // An error means that the client has left.
    let _ = respond.send_response(response, true);
    status.code
}

/// Ends a call after its response has started. Returns the code.
pub(in crate::driver) fn trailers(stream: &mut SendStream<Payload>, status: &Status) -> Code {
    let mut trailers = HeaderMap::new();
    status.write(&mut trailers);
    // An error means that the client has left.
    let _ = stream.send_trailers(trailers);
    status.code
}

/// Status for a passed client deadline (P3), with the text of etcd and Go.
pub(in crate::driver) fn deadline_exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// Status for a failed call. After the client deadline it is DEADLINE_EXCEEDED: etcd resets an
/// overdue stream by its own clock, which may fire a moment before the proxy's timer (P3, E6).
pub(in crate::driver) fn failure_status(failure: &Failure, deadline: Option<Instant>) -> Status {
    match deadline {
        Some(deadline) if Instant::now() >= deadline => deadline_exceeded(),
        _ => failure::status(failure),
    }
}

/// Status for a request above `--max-send-bytes` (P6).
pub(in crate::driver) fn send_too_large(len: u64, max: u64) -> Status {
    let text = format!("trying to send message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

/// Status for a response above `--max-recv-bytes` (P6).
pub(in crate::driver) fn recv_too_large(len: u64, max: u64) -> Status {
    let text = format!("grpc: received message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

/// Status for a large request, when the incomplete ones of a worker exceed their bound (S1).
pub(in crate::driver) fn too_many_large_requests() -> Status {
    let text = "etcd-edge: too many large requests in progress";
    Status::new(Code::ResourceExhausted, text)
}

/// Status for a large response, when the incomplete ones of a worker exceed their bound (S1).
pub(in crate::driver) fn too_many_large_responses() -> Status {
    let text = "etcd-edge: too many large responses in progress";
    Status::new(Code::ResourceExhausted, text)
}

/// Status at shutdown for calls that have no end of their own (S2).
pub(in crate::driver) fn shutting_down() -> Status {
    Status::new(Code::Unavailable, "etcd-edge is shutting down")
}

/// Status when no endpoint has a leader (W12), with the text of etcd.
pub(in crate::driver) fn no_leader() -> Status {
    Status::new(Code::Unavailable, NO_LEADER)
}

/// Status for a unary request that did not arrive within [`limits::REQUEST_TIME`] (S1).
pub(in crate::driver) fn slow_request() -> Status {
    let text = format!(
        "etcd-edge: request not complete within {:?}",
        limits::REQUEST_TIME
    );
    Status::new(Code::ResourceExhausted, text)
}

/// Ends an interrupted call after its response has started. Returns the code.
pub(in crate::driver) fn interrupted(
    stream: &mut SendStream<Payload>,
    interrupted: Interrupted,
) -> Code {
    match interrupted {
        Interrupted::ClientGone => Code::Cancelled,
        Interrupted::Deadline => trailers(stream, &deadline_exceeded()),
        Interrupted::Drain => trailers(stream, &shutting_down()),
    }
}
