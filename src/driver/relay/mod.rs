//! Every call that is not a unary read: relayed both ways as it comes, with back-pressure (P1,
//! P2, P4), and sent once more only when etcd provably did not process it (E2).

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use http::Response;
use tokio::time::{Instant, sleep};

use crate::call_log::finished_call::Source;
use crate::driver::call::{Call, while_wanted};
use crate::driver::relay::cache_invalidation::Write;
use crate::driver::relay::request_stream::RequestStream;
use crate::driver::relay::response_observer::ResponseObserver;
use crate::driver::relay::response_stream::{ResponseStream, Stopped};
use crate::driver::state::interrupt::{Interrupted, bounded};
use crate::driver::state::reply;
use crate::error::{Failure, Progress};
use crate::limits;
use crate::net::pump::End;
use crate::state_machine::picker::Tried;
use crate::state_machine::retry::{RetryVerdict, Situation, verdict};
use crate::upstream::attempt;
use crate::upstream::call_sample::CallSample;
use crate::upstream::conn::{Conn, OpenedCall};
use crate::upstream::failure;
use crate::wire::status::{Code, Status};
use end_of_stream::{finish, stopped};

pub(super) mod cache_invalidation;
pub(super) mod end_of_stream;
pub(super) mod replay_buffer;
pub(super) mod request_stream;
pub(super) mod response_observer;
pub(super) mod response_stream;
pub(super) mod unary_response;

/// Serves a call of which these bytes have been received.
pub(super) async fn serve(call: &mut Call, received: Vec<Bytes>) -> Code {
    let mut upload = RequestStream::new(call, received);
    let mut write = Write::of(call);
    let opened = open(call, &mut upload).await;
    if let Some(write) = &mut write {
        write.learn(&call.ctx, || upload.sent());
        if opened.is_err() && upload.may_be_done() {
            write.unsure(&call.ctx);
        }
    }
    match opened {
        Ok((taken, response)) => answer(call, upload, taken, response, write).await,
        Err(Stop::Status(status)) => {
            // Whoever was asked has not answered.
            call.comes_from(Source::Proxy);
            reply::trailers_only(&mut call.respond, &status)
        }
        Err(Stop::ClientGone) => Code::Cancelled,
    }
}

/// Why there is no answer from etcd.
enum Stop {
    Status(Status),
    ClientGone,
}

impl From<Interrupted> for Stop {
    fn from(cut: Interrupted) -> Stop {
        match cut {
            Interrupted::ClientGone => Stop::ClientGone,
            Interrupted::Deadline => Stop::Status(reply::deadline_exceeded()),
            Interrupted::Drain => Stop::Status(reply::shutting_down()),
        }
    }
}

/// Sends the call, again where that is right, until an answer begins.
async fn open(
    call: &mut Call,
    upload: &mut RequestStream,
) -> Result<(OpenedCall, Response<RecvStream>), Stop> {
    let give_up = Instant::now() + limits::WAIT_FOR_ENDPOINT;
    let mut tried = Tried::default();
    loop {
        let Some(conn) = connection(call, tried, give_up).await? else {
            tried = Tried::default();
            continue;
        };
        tried.add(conn.endpoint());
        let failure = match attempt(call, upload, &conn).await? {
            Ok(begun) => return Ok(begun),
            Err(failure) => failure,
        };
        if failure.progress != Progress::Sent {
            upload.is_undone();
        }
        let situation = Situation {
            read: false,
            replayable: upload.is_replayable(),
            answered: false,
            untried_endpoint: call.ctx.pool.endpoints().other(tried).is_some(),
            wants_leader: attempt::wants_leader(&call.head.headers),
            time_left: Instant::now() < give_up,
        };
        match call.ctx.judged(verdict(&failure, situation)) {
            RetryVerdict::Give => return Err(Stop::Status(reply::lost(&failure, call.deadline))),
            RetryVerdict::Again => {}
            RetryVerdict::AfterPause => {
                tried = Tried::default();
                let mut pause = pin!(sleep(limits::READ_ROUND_PAUSE));
                while_wanted(call, |cx| pause.as_mut().poll(cx)).await?;
            }
        }
        call.ctx.count().retries.inc();
        upload.rewind(&mut call.body);
    }
}

/// A connection for the next attempt; `None` when no untried endpoint can be reached.
async fn connection(
    call: &mut Call,
    tried: Tried,
    give_up: Instant,
) -> Result<Option<Rc<Conn>>, Stop> {
    if tried.is_empty()
        && let Some(conn) = call.ctx.pool.ready()
    {
        return Ok(Some(conn));
    }
    let pool = call.ctx.pool.clone();
    // Boxed: most calls find a connection ready, and every call's future would hold this.
    let mut dial = Box::pin(async move {
        if tried.is_empty() {
            pool.connection(give_up).await.map(Some)
        } else {
            Ok(pool.other(tried, give_up).await)
        }
    });
    let conn = Box::pin(while_wanted(call, |cx| dial.as_mut().poll(cx))).await?;
    conn.map_err(|failure| Stop::Status(reply::lost(&failure, call.deadline)))
}

/// One attempt, up to the head of etcd's answer.
async fn attempt(
    call: &mut Call,
    upload: &mut RequestStream,
    conn: &Rc<Conn>,
) -> Result<Result<(OpenedCall, Response<RecvStream>), Failure>, Stop> {
    let head = attempt::head(conn.target(), &call.head, call.left());
    let mut taken = match conn.open(head, false) {
        Ok(taken) => taken,
        Err(failure) => return Ok(Err(failure)),
    };
    upload.begins();
    if let Some(record) = &call.record {
        record.comes_over(conn);
    }
    let measure = call.is_short().then(|| CallSample::begin(conn)).flatten();
    let drain = (!call.is_unary()).then(|| call.ctx.drain.clone());
    let timer = call.timer();
    let Call { body, respond, .. } = call;
    let begun = bounded(timer, drain.as_ref(), |cx| {
        let uploaded = upload.poll(cx, body, &mut taken.body);
        if let Poll::Ready(Err(why)) = uploaded {
            return Poll::Ready(why.into_cut().map(Begun::Refused));
        }
        if let Poll::Ready(response) = Pin::new(&mut taken.response).poll(cx) {
            return Poll::Ready(Ok(Begun::Response(response)));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await?;
    if let (Some(measure), Begun::Response(response)) = (measure, &begun) {
        let status = response.as_ref().map(|r| Status::from_headers(r.headers()));
        measure.ended(status.is_ok_and(|s| s.is_none_or(|s| s.code != Code::Unavailable)));
    }
    match begun {
        Begun::Response(Ok(response)) => Ok(Ok((taken, response))),
        Begun::Response(Err(e)) => Ok(Err(failure::from_h2(&e))),
        Begun::Refused(status) => Err(Stop::Status(status)),
    }
}

enum Begun {
    Response(Result<Response<RecvStream>, h2::Error>),
    Refused(Status),
}

/// Relays an answer that has begun, and what is left of the request beside it.
async fn answer(
    call: &mut Call,
    mut upload: RequestStream,
    mut taken: OpenedCall,
    response: Response<RecvStream>,
    write: Option<Write>,
) -> Code {
    let lesson = ResponseObserver::new(call, || upload.sent()).of_write(write);
    upload.forget();
    let (head, mut from) = response.into_parts();
    let end = from.is_end_stream();
    let code = Status::from_headers(&head.headers).map_or(Code::Unknown, |s| s.code);
    if end {
        lesson.ended(&call.ctx, code);
    }
    let Ok(mut to) = call
        .respond
        .send_response(Response::from_parts(head, ()), end)
    else {
        lesson.broke_off(&call.ctx);
        return Code::Cancelled;
    };
    if end {
        return code;
    }
    let unary = call.is_unary();
    let mut out = ResponseStream::new(call, unary, lesson)
        .translated(call.method)
        .counted(call);
    let drain = (!unary).then(|| call.ctx.drain.clone());
    let timer = call.timer();
    let body = &mut call.body;
    let ended = bounded(timer, drain.as_ref(), |cx| {
        if let Poll::Ready(ended) = out.poll(cx, &mut from, &mut to) {
            return Poll::Ready(Ok(Ended::Out(ended)));
        }
        if let Poll::Ready(Err(why)) = upload.poll(cx, body, &mut taken.body) {
            return Poll::Ready(why.into_cut().map(Ended::Refused));
        }
        to.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    })
    .await;
    match &ended {
        Ok(Ended::Out(Ok(end))) => out.lesson().ended(&call.ctx, end_of_stream::code(end)),
        _ => out.lesson().broke_off(&call.ctx),
    }
    match ended {
        Ok(Ended::Out(Ok(end))) => finish(&mut to, end),
        Ok(Ended::Out(Err(why))) => stopped(call, &mut to, why),
        Ok(Ended::Refused(status)) => reply::trailers(&mut to, &status),
        Err(cut) => reply::cut(&mut to, cut),
    }
}

enum Ended {
    Out(Result<End, Stopped>),
    Refused(Status),
}
