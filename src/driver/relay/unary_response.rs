//! The answer to a read on its way to the client: in one piece where it is small, with
//! back-pressure where it is not, relayed where it was too large to hold.

use std::collections::VecDeque;
use std::task::Poll;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response, response};

use crate::driver::call::Call;
use crate::driver::relay::end_of_stream::{finish, stopped};
use crate::driver::relay::response_observer::ResponseObserver;
use crate::driver::relay::response_stream::{ResponseStream, Stopped};
use crate::driver::state::interrupt::{Interrupted, bounded};
use crate::driver::state::reply;
use crate::limits;
use crate::net::payload::Payload;
use crate::net::pump::End;
use crate::upstream::attempt::{Answer, Rest};
use crate::wire::status::Code;

/// Sends an answer; says its code.
pub(in crate::driver) async fn pass(call: &mut Call, answer: Answer) -> Code {
    let code = answer.code();
    if let (Some(record), Some(conn)) = (&call.record, answer.held.conn()) {
        record.comes_over(conn);
    }
    if let Some(first) = answer.chunks.front() {
        let known = &call.ctx.shared.known;
        if let Some(header) = known.see_answer(call.method, first) {
            call.peer.show(known, header.revision);
        }
    }
    // Nothing this small needs a look at its messages' lengths.
    let most = usize::try_from(call.ctx.max.recv).unwrap_or(usize::MAX);
    let at_once = limits::FREE_SEND_BYTES.min(most);
    match answer.rest {
        Rest::End(trailers) if answer.held.bytes() <= at_once => {
            pass_small(call, answer.head, answer.chunks, trailers);
            code
        }
        _ => Box::pin(pass_large(call, answer, code)).await,
    }
}

/// Everything at once: it leaves with one write. Errors mean that the client is gone.
fn pass_small(
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
        if let Some(record) = &call.record {
            record.sent(&chunk);
        }
        let _ = to.send_data(chunk.into(), false);
    }
    match trailers {
        Some(trailers) => drop(to.send_trailers(trailers)),
        None if !empty => drop(to.send_data(Payload::default(), true)),
        None => {}
    }
}

async fn pass_large(call: &mut Call, mut answer: Answer, code: Code) -> Code {
    let Ok(mut to) = call
        .respond
        .send_response(Response::from_parts(answer.head, ()), false)
    else {
        return Code::Cancelled;
    };
    let lesson = ResponseObserver::new(call, || None);
    let mut out = ResponseStream::new(call, true, lesson);
    // What is whole has been translated.
    if let Rest::Stream { .. } = answer.rest {
        out = out.translated(call.method);
        out.take(&mut answer.chunks);
    }
    let pinned = match answer.rest {
        Rest::End(_) => answer.held.bytes(),
        Rest::Stream { .. } => limits::UPSTREAM_STREAM_WINDOW as usize,
    };
    for chunk in answer.chunks {
        if let Err(error) = out.offer(chunk) {
            return stopped(call, &mut to, Stopped::Pump(error));
        }
        let sent = bounded(call.timer(), None, |cx| {
            if let Poll::Ready(sent) = out.poll_chunk(cx, &mut to, pinned) {
                return Poll::Ready(Ok(sent));
            }
            to.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return stopped(call, &mut to, why),
            Err(cut) => return reply::cut(&mut to, cut),
        }
    }
    let owed = answer.held.bytes();
    // They have left.
    drop(answer.held);
    match answer.rest {
        Rest::End(trailers) => {
            finish(&mut to, trailers.map_or(End::Bare, End::Trailers));
            code
        }
        Rest::Stream { mut body, guard } => {
            // An error means that the stream is gone, which the relay finds out.
            let _ = body.flow_control().release_capacity(owed);
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
    let ended = bounded(call.timer(), None, |cx| {
        if let Poll::Ready(ended) = out.poll(cx, body, to) {
            return Poll::Ready(Ok(ended));
        }
        to.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    });
    match ended.await {
        Ok(Ok(end)) => finish(to, end),
        Ok(Err(why)) => stopped(call, to, why),
        Err(cut) => reply::cut(to, cut),
    }
}
