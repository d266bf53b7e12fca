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
use crate::driver::etcd::hedged_read::{HedgedRead, PriorAttempt};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::store_response;
use crate::driver::state::reads::{CoalescingKey, SharedOutcome, SharedRead, SharedResponse};
use crate::limits;
use crate::state_machine::reads::coalescing::{Asked, Returned};
use crate::upstream::attempt::{Answer, Rest};
use crate::wire::status::{Code, Status};
use crate::wire::{frame, metadata};

/// Somebody's turn.
pub(super) enum Admission {
    /// His read goes now.
    Send(InFlight),
    /// He waits for the next.
    Wait(Waiter),
}

/// Asks for a turn.
pub(super) fn admit(ctx: &Rc<WorkerContext>, read: &ReadRequest, client: u64) -> Admission {
    let (key, caller) = (read.coalescing_key(), &read.caller);
    let mut coalescing = ctx.reads.coalescing.borrow_mut();
    let begin = || SharedRead::new(caller.credential.clone());
    let (shared_read, wanted) = match coalescing.ask(key.clone(), client, read.started.into_std(), begin) {
        Asked::Go => {
            return Admission::Send(InFlight {
                ctx: ctx.clone(),
                key,
                cached: false,
            });
        }
        Asked::Wait(shared_read) => (shared_read.clone(), None),
        Asked::Gather(shared_read, wanted) => (shared_read.clone(), Some(wanted)),
    };
    shared_read.waiting.set(shared_read.waiting.get() + 1);
    if let Some(wanted) = wanted {
        wait_for_more(ctx, &key, &shared_read, wanted);
    } else if shared_read.waiting.get() == shared_read.wanted.get() {
        shared_read.wake_task();
    }
    Admission::Wait(Waiter {
        shared_read,
        ctx: ctx.clone(),
        key,
        waker_index: None,
        woken: false,
    })
}

/// A read that is on its way; it has come back, or will not, when this is dropped.
pub(in crate::driver) struct InFlight {
    ctx: Rc<WorkerContext>,
    key: CoalescingKey,
    cached: bool,
}

impl InFlight {
    /// It has come back. Whether what came is kept, and may be given to those who wait.
    pub(in crate::driver) fn complete(mut self, cached: bool) {
        self.cached = cached;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        release(&self.ctx, &self.key, self.cached);
    }
}

/// Waits for what a flight is. Whoever waits for it to come back does not wait for as long as it may take:
/// when it is silent, the next goes too (E4).
pub(super) async fn release_when_silent<F: Future>(
    ctx: &WorkerContext,
    in_flight: &mut Option<InFlight>,
    mut future: Pin<&mut F>,
) -> F::Output {
    let mut silent = ctx.timers.at(Some(Instant::now() + limits::SILENT_READ));
    poll_fn(|cx| {
        if in_flight.is_some() && silent.poll(cx).is_ready() {
            *in_flight = None;
        }
        future.as_mut().poll(cx)
    })
    .await
}

/// Whoever waits has his turn, a large crowd when enough of it is there.
fn release(ctx: &Rc<WorkerContext>, key: &CoalescingKey, cached: bool) {
    send_next(ctx, key, cached, !cached);
}

/// Waits for more of a crowd, a little; then it is their turn.
fn wait_for_more(ctx: &Rc<WorkerContext>, key: &CoalescingKey, shared_read: &Rc<SharedRead>, wanted: usize) {
    // Where there is time to spare, nobody is made to wait.
    let busy = ctx.reads.load.percent() >= limits::COALESCE_MIN_LOAD;
    shared_read.wanted.set(if busy { wanted } else { 0 });
    let (ctx, key, shared_read) = (ctx.clone(), key.clone(), shared_read.clone());
    tokio::task::spawn_local(async move {
        let mut pause = pin!(sleep(limits::COALESCE_PAUSE));
        poll_fn(|cx| {
            let waiting = shared_read.waiting.get();
            if waiting == 0 || waiting >= shared_read.wanted.get() {
                return Poll::Ready(());
            }
            shared_read.task.set(Some(cx.waker().clone()));
            pause.as_mut().poll(cx)
        })
        .await;
        send_next(&ctx, &key, false, false);
    });
}

/// Whoever waits has his turn; or gathers, where that may be.
fn send_next(ctx: &Rc<WorkerContext>, key: &CoalescingKey, cached: bool, may_wait_for_more: bool) {
    loop {
        let returned = ctx.reads.coalescing.borrow_mut().returned(key, may_wait_for_more);
        let shared_read = match returned {
            Returned::Nobody => return,
            Returned::Gather(shared_read, wanted) => return wait_for_more(ctx, key, &shared_read, wanted),
            Returned::Go(shared_read) => shared_read,
        };
        match shared_read.waiting.get() {
            // They have all left: nothing is on its way for them.
            0 => {}
            // Any member's answer may serve them, however long it was on its way.
            _ if key.serializable && cached => shared_read.finish(SharedOutcome::Lookup),
            1 => return shared_read.finish(SharedOutcome::SendAsFirst),
            _ => {
                tokio::task::spawn_local(send_shared_read(ctx.clone(), key.clone(), shared_read));
                return;
            }
        }
    }
}

/// The place of one who waits.
pub(in crate::driver) struct Waiter {
    shared_read: Rc<SharedRead>,
    ctx: Rc<WorkerContext>,
    key: CoalescingKey,
    /// Of his waker.
    waker_index: Option<usize>,
    /// He has been told.
    woken: bool,
}

/// What one who waited is told.
pub(super) enum Wake {
    /// His read goes now.
    Send(InFlight),
    /// See [`SharedOutcome::Alone`].
    SendAlone,
    /// See [`SharedOutcome::Look`].
    Lookup,
    /// His answer.
    Response(Rc<Result<SharedResponse, Status>>),
}

impl Waiter {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let outcome = self.shared_read.outcome.borrow().clone();
        let wake = match outcome {
            None => {
                let mut wakers = self.shared_read.wakers.borrow_mut();
                match self.waker_index.and_then(|waker_index| wakers.get_mut(waker_index)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        self.waker_index = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                return Poll::Pending;
            }
            Some(SharedOutcome::SendAsFirst) => Wake::Send(self.in_flight()),
            Some(SharedOutcome::SendAlone) => Wake::SendAlone,
            Some(SharedOutcome::Lookup) => Wake::Lookup,
            Some(SharedOutcome::Response(answer)) => Wake::Response(answer),
        };
        self.woken = true;
        Poll::Ready(wake)
    }

    fn in_flight(&self) -> InFlight {
        InFlight {
            ctx: self.ctx.clone(),
            key: self.key.clone(),
            cached: false,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.woken {
            return;
        }
        let waiting = self.shared_read.waiting.get() - 1;
        self.shared_read.waiting.set(waiting);
        let outcome = self.shared_read.outcome.borrow().clone();
        match outcome {
            // It was his turn, and he is gone.
            Some(SharedOutcome::SendAsFirst) => drop(self.in_flight()),
            None if waiting == 0 => {
                self.shared_read.wake_task();
            }
            _ => {}
        }
    }
}

/// One read for all who waited: with a token of theirs, with no one's deadline (P5). It goes on while
/// one of them waits.
async fn send_shared_read(ctx: Rc<WorkerContext>, key: CoalescingKey, shared_read: Rc<SharedRead>) {
    let mut in_flight = Some(InFlight {
        ctx: ctx.clone(),
        key: key.clone(),
        cached: false,
    });
    let read = ReadRequest::for_shared_read(&ctx, &key, shared_read.credential.clone());
    ctx.counters().reads.shared.add(shared_read.waiting.get());
    let mut head = etcd_client::request_head(RANGE, shared_read.credential.as_ref());
    if key.requires_leader {
        head.headers
            .insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
    }
    let request = [frame::encode(&key.message)];
    let etcd_call = HedgedRead {
        ctx: &ctx,
        head: &head,
        deadline: None,
        request: &request,
        raw_keys: false,
    };
    let mut fetch = pin!(etcd_call.fetch(PriorAttempt::NotSent));
    let result = pin!(poll_fn(|cx| {
        if shared_read.waiting.get() == 0 {
            return Poll::Ready(None);
        }
        shared_read.task.set(Some(cx.waker().clone()));
        fetch.as_mut().poll(cx).map(Some)
    }));
    let answer = release_when_silent(&ctx, &mut in_flight, result).await;
    let mut cached = false;
    if let (Some(read), Some(Ok(answer))) = (&read, &answer) {
        cached = store_response(&ctx, read, answer);
    }
    if let Some(answer) = answer {
        shared_read.finish(outcome(&ctx, &shared_read, answer));
    }
    if let Some(in_flight) = in_flight {
        in_flight.complete(cached);
    }
}

/// What those who waited are told.
fn outcome(ctx: &WorkerContext, shared_read: &SharedRead, answer: Result<Answer, Status>) -> SharedOutcome {
    match answer {
        // It may be the token's fault, and they have tokens of their own (R4).
        Ok(answer) if is_token_error(answer.code()) && shared_read.credential.is_some() => {
            if let Some(credential) = &shared_read.credential {
                ctx.reads.permissions.borrow_mut().remove_token(credential);
            }
            SharedOutcome::SendAlone
        }
        // Too large to be held: it would have to be kept for the slowest of them.
        Ok(answer) => {
            buffered_response(answer).map_or(SharedOutcome::SendAlone, |response| SharedOutcome::Response(Rc::new(Ok(response))))
        }
        Err(status) => SharedOutcome::Response(Rc::new(Err(status))),
    }
}

/// What etcd says to a token that has expired, is of an older state of its users, or may not read this.
fn is_token_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument
    )
}

/// The answer, if all of it is here.
fn buffered_response(answer: Answer) -> Option<SharedResponse> {
    match answer.rest {
        Rest::End(trailers) => Some(SharedResponse {
            status: answer.head.status,
            headers: answer.head.headers,
            chunks: answer.chunks.into(),
            trailers,
        }),
        Rest::Stream { .. } => None,
    }
}
