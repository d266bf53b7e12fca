//! Reads that share (R1): whose turn it is, and the read of those who waited together.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::RANGE;
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::hedged_read::{Begun, Read};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::keep;
use crate::driver::state::reads::{Key, Outcome, Round, Whole};
use crate::limits;
use crate::state_machine::reads::coalescing::{Asked, Returned};
use crate::upstream::attempt::{Answer, Rest};
use crate::wire::status::{Code, Status};
use crate::wire::{frame, metadata};

/// Somebody's turn.
pub(super) enum Admission {
    /// His read goes now.
    Go(InFlight),
    /// He waits for the next.
    Wait(Waiter),
}

/// Asks for a turn.
pub(super) fn enter(ctx: &Rc<WorkerContext>, asking: &ReadRequest, client: u64) -> Admission {
    let (key, asker) = (asking.key(), &asking.asker);
    let mut sharing = ctx.reads.sharing.borrow_mut();
    let begin = || Round::new(asker.credential.clone());
    let (round, enough) = match sharing.ask(key.clone(), client, asking.since.into_std(), begin) {
        Asked::Go => {
            return Admission::Go(InFlight {
                ctx: ctx.clone(),
                key,
                kept: false,
            });
        }
        Asked::Wait(round) => (round.clone(), None),
        Asked::Gather(round, enough) => (round.clone(), Some(enough)),
    };
    round.live.set(round.live.get() + 1);
    if let Some(enough) = enough {
        gather(ctx, &key, &round, enough);
    } else if round.live.get() == round.enough.get() {
        round.wake_reader();
    }
    Admission::Wait(Waiter {
        round,
        ctx: ctx.clone(),
        key,
        place: None,
        taken: false,
    })
}

/// A read that is on its way; it has come back, or will not, when this is dropped.
pub(in crate::driver) struct InFlight {
    ctx: Rc<WorkerContext>,
    key: Key,
    kept: bool,
}

impl InFlight {
    /// It has come back. Whether what came is kept, and may be given to those who wait.
    pub(in crate::driver) fn landed(mut self, kept: bool) {
        self.kept = kept;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        came_back(&self.ctx, &self.key, self.kept);
    }
}

/// Waits for what a flight is. Whoever waits for it to come back does not wait for as long as it may take:
/// when it is silent, the next goes too (E4).
pub(super) async fn while_short<F: Future>(
    ctx: &WorkerContext,
    flight: &mut Option<InFlight>,
    mut what: Pin<&mut F>,
) -> F::Output {
    let mut silent = ctx.timers.at(Some(Instant::now() + limits::SILENT_READ));
    poll_fn(|cx| {
        if flight.is_some() && silent.poll(cx).is_ready() {
            *flight = None;
        }
        what.as_mut().poll(cx)
    })
    .await
}

/// Whoever waits has his turn, a large crowd when enough of it is there.
fn came_back(ctx: &Rc<WorkerContext>, key: &Key, kept: bool) {
    next(ctx, key, kept, !kept);
}

/// Waits for more of a crowd, a little; then it is their turn.
fn gather(ctx: &Rc<WorkerContext>, key: &Key, round: &Rc<Round>, enough: usize) {
    // Where there is time to spare, nobody is made to wait.
    let busy = ctx.reads.load.percent() >= limits::CROWD_LOAD;
    round.enough.set(if busy { enough } else { 0 });
    let (ctx, key, round) = (ctx.clone(), key.clone(), round.clone());
    tokio::task::spawn_local(async move {
        let mut pause = pin!(sleep(limits::CROWD_PAUSE));
        poll_fn(|cx| {
            let live = round.live.get();
            if live == 0 || live >= round.enough.get() {
                return Poll::Ready(());
            }
            round.reader.set(Some(cx.waker().clone()));
            pause.as_mut().poll(cx)
        })
        .await;
        next(&ctx, &key, false, false);
    });
}

/// Whoever waits has his turn; or gathers, where that may be.
fn next(ctx: &Rc<WorkerContext>, key: &Key, kept: bool, may_gather: bool) {
    loop {
        let returned = ctx.reads.sharing.borrow_mut().returned(key, may_gather);
        let round = match returned {
            Returned::Nobody => return,
            Returned::Gather(round, enough) => return gather(ctx, key, &round, enough),
            Returned::Go(round) => round,
        };
        match round.live.get() {
            // They have all left: nothing is on its way for them.
            0 => {}
            // Any member's answer may serve them, however long it was on its way.
            _ if key.serializable && kept => round.tell(Outcome::Look),
            1 => return round.tell(Outcome::Go),
            _ => {
                tokio::task::spawn_local(read(ctx.clone(), key.clone(), round));
                return;
            }
        }
    }
}

/// The place of one who waits.
pub(in crate::driver) struct Waiter {
    round: Rc<Round>,
    ctx: Rc<WorkerContext>,
    key: Key,
    /// Of his waker.
    place: Option<usize>,
    /// He has been told.
    taken: bool,
}

/// What one who waited is told.
pub(super) enum Wake {
    /// His read goes now.
    Go(InFlight),
    /// See [`Outcome::Alone`].
    Alone,
    /// See [`Outcome::Look`].
    Look,
    /// His answer.
    Answer(Rc<Result<Whole, Status>>),
}

impl Waiter {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let outcome = self.round.outcome.borrow().clone();
        let told = match outcome {
            None => {
                let mut wakers = self.round.wakers.borrow_mut();
                match self.place.and_then(|place| wakers.get_mut(place)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        self.place = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                return Poll::Pending;
            }
            Some(Outcome::Go) => Wake::Go(self.flight()),
            Some(Outcome::Alone) => Wake::Alone,
            Some(Outcome::Look) => Wake::Look,
            Some(Outcome::Answer(answer)) => Wake::Answer(answer),
        };
        self.taken = true;
        Poll::Ready(told)
    }

    fn flight(&self) -> InFlight {
        InFlight {
            ctx: self.ctx.clone(),
            key: self.key.clone(),
            kept: false,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let live = self.round.live.get() - 1;
        self.round.live.set(live);
        let outcome = self.round.outcome.borrow().clone();
        match outcome {
            // It was his turn, and he is gone.
            Some(Outcome::Go) => drop(self.flight()),
            None if live == 0 => {
                self.round.wake_reader();
            }
            _ => {}
        }
    }
}

/// One read for all who waited: with a token of theirs, with no one's deadline (P5). It goes on while
/// one of them waits.
async fn read(ctx: Rc<WorkerContext>, key: Key, round: Rc<Round>) {
    let mut flight = Some(InFlight {
        ctx: ctx.clone(),
        key: key.clone(),
        kept: false,
    });
    let asking = ReadRequest::shared(&ctx, &key, round.credential.clone());
    ctx.count().reads.shared.add(round.live.get());
    let mut head = etcd_client::head(RANGE, round.credential.as_ref());
    if key.leader {
        head.headers
            .insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
    }
    let request = [frame::encode(&key.message)];
    let read = Read {
        ctx: &ctx,
        head: &head,
        deadline: None,
        request: &request,
        untranslated: false,
    };
    let mut fetch = pin!(read.fetch(Begun::Nothing));
    let wanted = pin!(poll_fn(|cx| {
        if round.live.get() == 0 {
            return Poll::Ready(None);
        }
        round.reader.set(Some(cx.waker().clone()));
        fetch.as_mut().poll(cx).map(Some)
    }));
    let answer = while_short(&ctx, &mut flight, wanted).await;
    let mut kept = false;
    if let (Some(asking), Some(Ok(answer))) = (&asking, &answer) {
        kept = keep(&ctx, asking, answer);
    }
    if let Some(answer) = answer {
        round.tell(outcome(&ctx, &round, answer));
    }
    if let Some(flight) = flight {
        flight.landed(kept);
    }
}

/// What those who waited are told.
fn outcome(ctx: &WorkerContext, round: &Round, answer: Result<Answer, Status>) -> Outcome {
    match answer {
        // It may be the token's fault, and they have tokens of their own (R4).
        Ok(answer) if is_of_token(answer.code()) && round.credential.is_some() => {
            if let Some(credential) = &round.credential {
                ctx.reads.grants.borrow_mut().forget(credential);
            }
            Outcome::Alone
        }
        // Too large to be held: it would have to be kept for the slowest of them.
        Ok(answer) => {
            whole(answer).map_or(Outcome::Alone, |whole| Outcome::Answer(Rc::new(Ok(whole))))
        }
        Err(status) => Outcome::Answer(Rc::new(Err(status))),
    }
}

/// What etcd says to a token that has expired, is of an older state of its users, or may not read this.
fn is_of_token(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument
    )
}

/// The answer, if all of it is here.
fn whole(answer: Answer) -> Option<Whole> {
    match answer.rest {
        Rest::End(trailers) => Some(Whole {
            status: answer.head.status,
            headers: answer.head.headers,
            chunks: answer.chunks.into(),
            trailers,
        }),
        Rest::Stream { .. } => None,
    }
}
