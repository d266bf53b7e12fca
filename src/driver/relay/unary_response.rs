//! Response of a unary read on its way to the client: with one write if it is small, with
//! back-pressure if it is large, and relayed if it was too large to buffer.

use std::collections::VecDeque;
use std::task::Poll;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response, response};

use crate::driver::call::Call;
use crate::driver::relay::end_of_stream::{abort_stream, finish_stream};
use crate::driver::relay::response_observer::ResponseObserver;
use crate::driver::relay::response_stream::{ResponseStream, ResponseStreamError};
use crate::driver::state::interrupt::{Interrupted, until_interrupted};
use crate::driver::state::reply;
use crate::limits;
use crate::net::payload::Payload;
use crate::net::pump::PumpEnd;
use crate::upstream::attempt::{BufferedResponse, Rest};
use crate::wire::compression::{self, Encoding};
use crate::wire::status::Code;

/// Sends a response that is not compressed, and returns its status code. The client receives a
/// complete response in the given encoding, and a larger one uncompressed.
pub(in crate::driver) async fn send_unary_response(
    call: &mut Call,
    mut answer: BufferedResponse,
    encoding: Encoding,
) -> Code {
    let code = answer.code();
    if let (Some(log), Some(conn)) = (&call.log, answer.buffered.conn()) {
        log.set_upstream(conn);
    }
    if let Some(first) = answer.chunks.front() {
        let store_revision = &call.ctx.process.store_revision;
        if let Some(header) = store_revision.observe_response(call.method, first) {
            call.connection
                .raise_revision_floor(store_revision, header.revision);
        }
    }
    // A response below both bounds needs no check of message lengths (P6).
    let max = usize::try_from(call.ctx.max.recv).unwrap_or(usize::MAX);
    let inline_max = limits::FREE_SEND_BYTES.min(max);
    if encoding == Encoding::Gzip && answer.buffered.bytes() <= max {
        compress(&mut answer);
    }
    match answer.rest {
        Rest::End(trailers) if answer.buffered.bytes() <= inline_max => {
            send_small(call, answer.head, answer.chunks, trailers);
            code
        }
        _ => Box::pin(send_large(call, answer, code)).await,
    }
}

/// Compresses the message of a complete response, unless it is large.
#[cold]
fn compress(answer: &mut BufferedResponse) {
    if answer.chunks.is_empty() {
        return;
    }
    Encoding::Gzip.write(&mut answer.head.headers);
    let chunks = answer.chunks.iter().map(|chunk| &chunk[..]);
    if let (Rest::End(_), Some(message)) = (&answer.rest, compression::compress(chunks)) {
        answer.chunks = VecDeque::from([message]);
    }
}

/// Sends a small response with one write. Errors mean that the client has left.
fn send_small(
    call: &mut Call,
    head: response::Parts,
    chunks: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
) {
    let empty = chunks.is_empty() && trailers.is_none();
    let Ok(mut to) = call
        .respond
        .send_response(Response::from_parts(head, ()), empty)
    else {
        return;
    };
    for chunk in chunks {
        if let Some(log) = &call.log {
            log.count_sent(&chunk);
        }
        let _ = to.send_data(chunk.into(), false);
    }
    match trailers {
        Some(trailers) => drop(to.send_trailers(trailers)),
        None if !empty => drop(to.send_data(Payload::default(), true)),
        None => {}
    }
}

async fn send_large(call: &mut Call, mut answer: BufferedResponse, code: Code) -> Code {
    let Ok(mut to) = call
        .respond
        .send_response(Response::from_parts(answer.head, ()), false)
    else {
        return Code::Cancelled;
    };
    let observer = ResponseObserver::new(call, || None);
    let mut out = ResponseStream::new(call, true, observer);
    // A complete response has been translated already.
    if let Rest::Stream { .. } = answer.rest {
        out = out.with_translation(call.method);
        out.push_arrived(&mut answer.chunks);
    }
    let waiting_bytes = match answer.rest {
        Rest::End(_) => answer.buffered.bytes(),
        Rest::Stream { .. } => limits::UPSTREAM_STREAM_WINDOW as usize,
    };
    for chunk in answer.chunks {
        if let Err(error) = out.offer(chunk) {
            return abort_stream(call, &mut to, ResponseStreamError::Pump(error));
        }
        let sent = until_interrupted(call.deadline_timer(), None, |cx| {
            if let Poll::Ready(sent) = out.poll_chunk(cx, &mut to, waiting_bytes) {
                return Poll::Ready(Ok(sent));
            }
            to.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return abort_stream(call, &mut to, error),
            Err(interrupted) => return reply::interrupted(&mut to, interrupted),
        }
    }
    let unreleased = answer.buffered.bytes();
    // The client has received the buffered chunks.
    drop(answer.buffered);
    match answer.rest {
        Rest::End(trailers) => {
            finish_stream(
                &mut to,
                trailers.map_or(PumpEnd::NoTrailers, PumpEnd::Trailers),
            );
            code
        }
        Rest::Stream { mut body, guard } => {
            // An error means that the stream is closed. The relay detects that.
            let _ = body.flow_control().release_capacity(unreleased);
            let code = relay_rest(call, &mut body, &mut to, &mut out).await;
            drop(guard);
            code
        }
    }
}

async fn relay_rest(
    call: &Call,
    body: &mut RecvStream,
    to: &mut SendStream<Payload>,
    out: &mut ResponseStream,
) -> Code {
    let ended = until_interrupted(call.deadline_timer(), None, |cx| {
        if let Poll::Ready(ended) = out.poll(cx, body, to) {
            return Poll::Ready(Ok(ended));
        }
        to.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    });
    match ended.await {
        Ok(Ok(end)) => finish_stream(to, end),
        Ok(Err(error)) => abort_stream(call, to, error),
        Err(interrupted) => reply::interrupted(to, interrupted),
    }
}
