//! Read coalescing (R1): admits a read, or makes it wait for a read that it shares with other
//! clients.
//!
//! At most one read per key is in flight. Reads that arrive meanwhile wait, and share one read that
//! is sent after they arrived. The decisions are in `state_machine::reads::coalescing`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::RANGE;
use crate::driver::etcd::client::OwnCall;
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::store_response;
use crate::driver::state::reads::{CoalescingKey, SharedOutcome, SharedRead, SharedResponse};
use crate::limits;
use crate::state_machine::reads::coalescing::{ArrivalAction, ReturnAction};
use crate::upstream::attempt::{BufferedResponse, Rest};
use crate::wire::frame;
use crate::wire::status::{Code, Status};

/// Result of [`admit`].
pub(super) enum Admission {
    /// The client sends its own read now.
    Send(InFlight),
    /// The client waits for the next read.
    Wait(Waiter),
}

/// Admits the read of a client connection. A read that `has_waited` for a cached response waits for
/// a response of etcd.
pub(super) fn admit(
    ctx: &Rc<WorkerContext>,
    read: &ReadRequest,
    client: u64,
    has_waited: bool,
) -> Admission {
    let (key, caller) = (read.coalescing_key(), &read.caller);
    let mut coalescing = ctx.reads.coalescing.borrow_mut();
    let begin = || SharedRead::new(caller.credential.clone());
    let (shared_read, wanted) =
        match coalescing.request(key.clone(), client, read.started.into_std(), begin) {
            ArrivalAction::Send => {
                return Admission::Send(InFlight {
                    ctx: ctx.clone(),
                    key,
                    cached: false,
                });
            }
            ArrivalAction::Wait(shared_read) => (shared_read.clone(), None),
            ArrivalAction::Batch(shared_read, wanted) => (shared_read.clone(), Some(wanted)),
        };
    shared_read.waiting.set(shared_read.waiting.get() + 1);
    if has_waited {
        shared_read.must_be_sent.set(true);
    }
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

/// A read that is in flight. Dropping it lets the waiting reads continue.
pub(in crate::driver) struct InFlight {
    ctx: Rc<WorkerContext>,
    key: CoalescingKey,
    cached: bool,
}

impl InFlight {
    /// Reports that the read returned. `cached` means that the cache contains its response, and
    /// that waiting serializable reads may use it.
    pub(in crate::driver) fn complete(mut self, cached: bool) {
        self.cached = cached;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        release(&self.ctx, &self.key, self.cached);
    }
}

/// Polls `future`, the in-flight read, to its end. If the read stays silent for
/// [`limits::SILENT_READ`], the waiting reads no longer wait for it (E4).
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

/// Lets the waiting reads continue. A large batch first waits for more reads.
fn release(ctx: &Rc<WorkerContext>, key: &CoalescingKey, cached: bool) {
    send_next(ctx, key, cached, !cached);
}

/// Waits up to [`limits::COALESCE_PAUSE`] for more reads of a batch, then lets them continue.
fn wait_for_more(
    ctx: &Rc<WorkerContext>,
    key: &CoalescingKey,
    shared_read: &Rc<SharedRead>,
    wanted: usize,
) {
    // On a worker that is not busy, reads do not wait for a larger batch.
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

/// Lets the waiting reads continue, or makes them wait for more reads if `may_wait_for_more`.
fn send_next(ctx: &Rc<WorkerContext>, key: &CoalescingKey, cached: bool, may_wait_for_more: bool) {
    loop {
        let returned = ctx
            .reads
            .coalescing
            .borrow_mut()
            .returned(key, may_wait_for_more);
        let shared_read = match returned {
            ReturnAction::Idle => return,
            ReturnAction::Batch(shared_read, wanted) => {
                return wait_for_more(ctx, key, &shared_read, wanted);
            }
            ReturnAction::Send(shared_read) => shared_read,
        };
        match shared_read.waiting.get() {
            // All waiting clients have left, so no read is sent.
            0 => {}
            // A serializable read accepts the response of any member, however long it was in
            // flight.
            _ if key.serializable && cached && !shared_read.must_be_sent.get() => {
                shared_read.finish(SharedOutcome::Lookup);
            }
            1 => return shared_read.finish(SharedOutcome::SendAsFirst),
            _ => {
                tokio::task::spawn_local(send_shared_read(ctx.clone(), key.clone(), shared_read));
                return;
            }
        }
    }
}

/// A client that waits for a shared read.
pub(in crate::driver) struct Waiter {
    shared_read: Rc<SharedRead>,
    ctx: Rc<WorkerContext>,
    key: CoalescingKey,
    /// Index of its waker in the shared read.
    waker_index: Option<usize>,
    /// The client has received its result.
    woken: bool,
}

/// Result of waiting for a shared read, or for a permission check.
pub(in crate::driver) enum Wake {
    /// The client sends its own read now.
    Send(InFlight),
    /// Each client sends its own read: [`SharedOutcome::SendAlone`], or a permission that etcd
    /// refused.
    SendAlone,
    /// The response may be in the cache now: [`SharedOutcome::Lookup`], or a permission that etcd
    /// granted.
    Lookup,
    /// The shared response.
    Response(Rc<Result<SharedResponse, Status>>),
}

impl Waiter {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let outcome = self.shared_read.outcome.borrow().clone();
        let wake = match outcome {
            None => {
                let mut wakers = self.shared_read.wakers.borrow_mut();
                match self
                    .waker_index
                    .and_then(|waker_index| wakers.get_mut(waker_index))
                {
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
            // The client was to send the next read, but it has left.
            Some(SharedOutcome::SendAsFirst) => drop(self.in_flight()),
            None if waiting == 0 => {
                self.shared_read.wake_task();
            }
            _ => {}
        }
    }
}

/// Sends one read for all waiting clients, with the token of one of them and without a deadline
/// (P5). The read continues while at least one of them waits.
async fn send_shared_read(ctx: Rc<WorkerContext>, key: CoalescingKey, shared_read: Rc<SharedRead>) {
    let mut in_flight = Some(InFlight {
        ctx: ctx.clone(),
        key: key.clone(),
        cached: false,
    });
    let read = ReadRequest::for_shared_read(&ctx, &key, shared_read.credential.clone());
    ctx.counters().reads.shared.add(shared_read.waiting.get());
    let request = frame::encode(&key.message);
    let etcd_call = OwnCall::new(RANGE, shared_read.credential.as_ref(), request)
        .with_leader(key.requires_leader);
    let mut fetch = pin!(etcd_call.send(&ctx));
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

/// Converts the result of a shared read into the outcome for its clients.
fn outcome(
    ctx: &WorkerContext,
    shared_read: &SharedRead,
    answer: Result<BufferedResponse, Status>,
) -> SharedOutcome {
    match answer {
        // The token may be the cause, and the other clients have tokens of their own (R4).
        Ok(answer) if is_token_error(answer.code()) && shared_read.credential.is_some() => {
            if let Some(credential) = &shared_read.credential {
                ctx.reads.permissions.borrow_mut().remove_token(credential);
            }
            SharedOutcome::SendAlone
        }
        // A response too large to buffer would have to stay in memory for the slowest client.
        Ok(answer) => buffered_response(answer).map_or(SharedOutcome::SendAlone, |response| {
            SharedOutcome::Response(Rc::new(Ok(response)))
        }),
        Err(status) => SharedOutcome::Response(Rc::new(Err(status))),
    }
}

/// Returns whether a code may concern the token: it has expired, it is older than a change of users
/// or roles, or it may not read the range.
fn is_token_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument
    )
}

/// Returns the response if it is buffered completely.
fn buffered_response(answer: BufferedResponse) -> Option<SharedResponse> {
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
