//! `grpc.health.v1` Watch, answered here: how what was asked for is, and each change of it.
//!
//! Thousands may wait: they hear of a change by one channel, and one task in the process looks at etcd for
//! all of them, while there are any. A client that does not read is told the latest when it reads on.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep};

use crate::call_log::open_call::LoggedCall;
use crate::driver::WorkerContext;
use crate::driver::call::request_body::{RequestBody, read_request_body};
use crate::driver::call::{Call, while_call_open};
use crate::driver::health::calls::asked;
use crate::driver::health::probes::read;
use crate::driver::state::health::{HealthSubscriber, HealthPoller};
use crate::driver::state::interrupt::{Interrupted, until_interrupted};
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::net::pump::Pump;
use crate::wire::health::{Asked, Serving, response};
use crate::wire::status::{Code, Status};

/// Serves a call of Watch to its end.
pub(in crate::driver) async fn follow(mut call: Box<Call>) -> Code {
    let request = match read_request_body(&mut call).await {
        RequestBody::Complete(request) => request,
        RequestBody::Partial(received) => received,
        RequestBody::Ended(code) => return code,
    };
    let asked = match asked(&call, request) {
        Ok(asked) => asked,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let method = call.streaming_method();
    if let Some(method) = method {
        call.ctx.counters().calls[method].received.inc();
    }
    let Some(_follower) = HealthSubscriber::new(&call.ctx.process.health, &call.connection) else {
        call.ctx.counters().hit(Limit::HealthWatches);
        let text = "etcd-edge: too many open health watches";
        let status = Status::new(Code::ResourceExhausted, text);
        return reply::trailers_only(&mut call.respond, &status);
    };
    let mut serves = call.ctx.process.health.subscribe();
    if asked == Asked::Calls {
        look(&call.ctx);
        if let Err(code) = first(&mut call, &mut serves).await {
            return code;
        }
    }
    let Call {
        ctx,
        mut respond,
        deadline,
        log: record,
        ..
    } = *call;
    let Ok(to) = respond.send_response(reply::head(), false) else {
        return Code::Cancelled;
    };
    drop(respond);
    let mut telling = Telling {
        ctx,
        asked,
        deadline,
        to,
        method,
        record,
    };
    telling.run(serves).await
}

/// Waits until it is known whether calls are served. Ends the call where it is over before that.
async fn first(call: &mut Call, serves: &mut Receiver<Option<bool>>) -> Result<(), Code> {
    let ctx = call.ctx.clone();
    let mut known = pin!(async {
        // What was known may be long ago, when somebody last asked.
        let _ = read(&ctx).await;
        while serves.borrow_and_update().is_none() {
            // One failure is not enough to know, see `Steady`. The sender is everybody's.
            let _ = serves.changed().await;
        }
    });
    match while_call_open(call, |cx| known.as_mut().poll(cx)).await {
        Ok(()) => Ok(()),
        Err(cut) => {
            let status = match cut {
                Interrupted::ClientGone => return Err(Code::Cancelled),
                Interrupted::Deadline => reply::deadline_exceeded(),
                Interrupted::Drain => reply::shutting_down(),
            };
            Err(reply::trailers_only(&mut call.respond, &status))
        }
    }
}

/// Sees to it that somebody looks at etcd while anybody waits for changes.
fn look(ctx: &Rc<WorkerContext>) {
    let Some(looker) = HealthPoller::new(&ctx.process.health) else {
        return;
    };
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        while looker.should_continue() {
            // What it finds is told by the channel. After one that failed the next says more.
            let pause = match read(&ctx).await {
                Ok(()) => limits::HEALTH_CHECK_INTERVAL,
                Err(_) => limits::HEALTH_FAILURE_TTL,
            };
            sleep(pause).await;
        }
    });
}

/// A client that is told.
struct Telling {
    ctx: Rc<WorkerContext>,
    asked: Asked,
    deadline: Option<Instant>,
    to: SendStream<Payload>,
    /// The place of its method in tables.
    method: Option<usize>,
    /// What is noted of the call.
    record: Option<Rc<LoggedCall>>,
}

impl Telling {
    async fn run(&mut self, mut serves: Receiver<Option<bool>>) -> Code {
        let drain = self.ctx.drain.clone();
        let mut pump = Pump::new(u64::MAX);
        let mut said = None;
        loop {
            let now = self.serving(*serves.borrow_and_update());
            if said != Some(now) {
                said = Some(now);
                pump.offer(self.word(now));
            }
            let mut changed = pin!(serves.changed());
            let to = &mut self.to;
            let timer = self.ctx.timers.at(self.deadline);
            let waited = until_interrupted(timer, Some(&drain), |cx| {
                if to.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Interrupted::ClientGone));
                }
                if ready!(pump.poll_offered(cx, to, false)).is_err() {
                    return Poll::Ready(Err(Interrupted::ClientGone));
                }
                changed.as_mut().poll(cx).map(|_| Ok(()))
            });
            match waited.await {
                Ok(()) => {}
                Err(cut) => {
                    let is_news = cut == Interrupted::Drain
                        && !matches!(said, Some(Serving::Unknown | Serving::No));
                    if is_news {
                        // Balancers move on at this word already.
                        let word = self.word(Serving::No);
                        let _ = self.to.send_data(word.into(), false);
                    }
                    return reply::interrupted(&mut self.to, cut);
                }
            }
        }
    }

    /// A message that is sent now.
    fn word(&self, serving: Serving) -> Bytes {
        let word = response(serving);
        if let Some(record) = &self.record {
            record.sent(&word);
        }
        if let Some(method) = self.method {
            self.ctx.counters().calls[method].sent.inc();
        }
        word
    }

    fn serving(&self, serves: Option<bool>) -> Serving {
        let is_up = match self.asked {
            Asked::Unknown => return Serving::Unknown,
            Asked::Calls => serves.unwrap_or(false),
            Asked::Process => true,
        };
        match is_up && !self.ctx.drain.has_begun() {
            true => Serving::Yes,
            false => Serving::No,
        }
    }
}
