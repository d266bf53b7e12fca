//! The way of a read that waits: for its turn, for etcd's word on its client, or for the client.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::slice;

use bytes::Bytes;
use http::Response;

use crate::call_log::finished_call::Source;
use crate::driver::WorkerContext;
use crate::driver::call::{Call, while_wanted};
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::first_attempt::{Plain, cut_short, plain, second_chances};
use crate::driver::etcd::hedged_read::Begun;
use crate::driver::reads::coalesce::{InFlight, Wake, while_short};
use crate::driver::reads::lookup::{LookupResult, give};
use crate::driver::reads::plan::Wait;
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::{granted, is_behind, keep};
use crate::driver::relay::unary_response::pass;
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::reads::Whole;
use crate::driver::state::reply;
use crate::upstream::attempt::{Answer, Rest};
use crate::upstream::conn::HeldResponse;
use crate::wire::status::{Code, Status};

/// Serves it to its end. Many may wait at once, so what comes after is boxed: each would carry it.
pub(in crate::driver) async fn serve(
    call: &mut Call,
    request: Vec<Bytes>,
    waits: Box<(ReadRequest, Wait)>,
) -> Code {
    let (asking, wait) = *waits;
    match wait {
        Wait::Client(answer) => {
            call.comes_from(Source::Cache);
            Box::pin(pass(call, kept(answer))).await
        }
        Wait::Word(wish) => Box::pin(ask_first(call, &request, asking, wish)).await,
        Wait::Turn(mut ticket) => {
            let told = while_wanted(call, |cx| ticket.poll(cx)).await;
            drop(ticket);
            match told {
                Ok(Wake::Go(flight)) => Box::pin(go(call, &request, asking, Some(flight))).await,
                Ok(Wake::Alone) => Box::pin(go(call, &request, asking, None)).await,
                Ok(Wake::Look) => Box::pin(look(call, &request, asking)).await,
                Ok(Wake::Answer(answer)) => Box::pin(told_all(call, &asking, &answer)).await,
                Err(cut) => cut_short(call, cut),
            }
        }
    }
}

/// Etcd says first whether the client may be given what is kept.
async fn ask_first(
    call: &mut Call,
    request: &[Bytes],
    asking: ReadRequest,
    wish: PermissionKey,
) -> Code {
    match may(call, wish).await {
        Ok(true) => look(call, request, asking).await,
        // What etcd says to the read itself is what the client is told.
        Ok(false) => go(call, request, asking, None).await,
        Err(cut) => cut_short(call, cut),
    }
}

/// The same answer for all who waited.
async fn told_all(
    call: &mut Call,
    asking: &ReadRequest,
    answer: &Rc<Result<Whole, Status>>,
) -> Code {
    match &**answer {
        Ok(whole) => {
            let answer = answer_of(whole.clone());
            call.comes_from(Source::Shared);
            if is_behind(call, asking, &answer) {
                return overtake(call, asking, answer).await;
            }
            pass(call, answer).await
        }
        Err(status) => reply::trailers_only(&mut call.respond, status),
    }
}

/// What is kept may be for it now; if it is not, it goes to etcd.
async fn look(call: &mut Call, request: &[Bytes], asking: ReadRequest) -> Code {
    let asking = asking.again(&call.ctx);
    match give(call, &asking) {
        LookupResult::Yes => Code::Ok,
        LookupResult::Large(answer) => {
            call.comes_from(Source::Cache);
            pass(call, kept(answer)).await
        }
        LookupResult::IfMay(_) | LookupResult::No => go(call, request, asking, None).await,
    }
}

/// Goes to etcd on its own.
async fn go(
    call: &mut Call,
    request: &[Bytes],
    asking: ReadRequest,
    flight: Option<InFlight>,
) -> Code {
    let asking = asking.again(&call.ctx);
    match plain(call, request).await {
        Plain::Answered(answer) => came(call, Some(&asking), answer, flight).await,
        Plain::Cut(cut) => cut_short(call, cut),
        Plain::Begun(begun) => on(call, request, Some(asking), begun, flight).await,
    }
}

/// What one attempt was not enough for.
pub(in crate::driver) async fn on(
    call: &mut Call,
    request: &[Bytes],
    asking: Option<ReadRequest>,
    begun: Begun,
    mut flight: Option<InFlight>,
) -> Code {
    let ctx = call.ctx.clone();
    if let Begun::Silent(_) = begun {
        flight = None;
    }
    let answered = {
        let chances = pin!(second_chances(call, request, begun));
        while_short(&ctx, &mut flight, chances).await
    };
    match answered {
        Ok(Ok(answer)) => came(call, asking.as_ref(), answer, flight).await,
        Ok(Err(status)) => reply::trailers_only(&mut call.respond, &status),
        Err(cut) => cut_short(call, cut),
    }
}

/// An answer of etcd's, and what it asked if that is understood.
pub(in crate::driver) async fn came(
    call: &mut Call,
    asking: Option<&ReadRequest>,
    answer: Answer,
    flight: Option<InFlight>,
) -> Code {
    if let Some(asking) = asking {
        if is_behind(call, asking, &answer) {
            drop(flight);
            return overtake(call, asking, answer).await;
        }
        let kept = keep(&call.ctx, asking, &answer);
        // Whoever waits for it to come back goes now, however long it takes to be read.
        if let Some(flight) = flight {
            flight.landed(kept);
        }
    }
    pass(call, answer).await
}

/// Asks again, for what is no older than anything a client was shown: not of any member, but of one
/// that has come as far as all (R5).
async fn overtake(call: &mut Call, asking: &ReadRequest, older: Answer) -> Code {
    let Some((asking, request)) = asking.linearizable(&call.ctx) else {
        return pass(call, older).await;
    };
    drop(older);
    call.ctx.count().reads.stale_retried.inc();
    // It is not behind, and so comes by here no more.
    Box::pin(go(call, &[request], asking, None)).await
}

/// Whether etcd says that the client may read; asked with its own token.
async fn may(call: &mut Call, wish: PermissionKey) -> Result<bool, Interrupted> {
    let ctx = call.ctx.clone();
    let mut asked = pin!(may_read(&ctx, wish));
    while_wanted(call, |cx| asked.as_mut().poll(cx)).await
}

async fn may_read(ctx: &Rc<WorkerContext>, wish: PermissionKey) -> bool {
    let (asked, dropped) = (std::time::Instant::now(), ctx.shared.answers.dropped());
    let (credential, range) = &wish;
    let answer = etcd_client::txn(ctx, credential.as_ref(), slice::from_ref(range), true).await;
    let good = answer.is_ok_and(|answer| answer.code() == Code::Ok);
    if good {
        granted(ctx, wish, asked, dropped);
    }
    good
}

/// A kept answer as one of etcd's.
pub(in crate::driver) fn kept(answer: Bytes) -> Answer {
    Answer {
        head: reply::head().into_parts().0,
        held: HeldResponse::kept(answer.len()),
        chunks: VecDeque::from([answer]),
        rest: Rest::End(Some(reply::ok_trailers())),
    }
}

/// An answer of several as one of etcd's.
fn answer_of(whole: Whole) -> Answer {
    let mut head = Response::new(());
    *head.status_mut() = whole.status;
    *head.headers_mut() = whole.headers;
    Answer {
        head: head.into_parts().0,
        held: HeldResponse::kept(whole.chunks.iter().map(Bytes::len).sum()),
        chunks: whole.chunks.into(),
        rest: Rest::End(whole.trailers),
    }
}
