//! `grpc.health.v1` Watch, served by the proxy: sends the current status and each change of it.
//!
//! Thousands of streams may be open. One channel notifies them of changes, and one task in the
//! process polls etcd while there are streams. A client that does not read receives only the latest
//! status when it reads again.

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
use crate::driver::health::calls::parse_request;
use crate::driver::health::probes::check_etcd;
use crate::driver::state::health::{HealthPoller, HealthSubscriber};
use crate::driver::state::interrupt::{Interrupted, until_interrupted};
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::net::pump::Pump;
use crate::wire::compression::{self, Encoding};
use crate::wire::health::{HealthTarget, Serving, response};
use crate::wire::status::{Code, Status};

/// Serves a Watch call until its end.
pub(in crate::driver) async fn serve_watch(mut call: Box<Call>) -> Code {
    let encoding = match Encoding::from_headers(&call.head.headers) {
        Ok(encoding) => encoding,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let request = match read_request_body(&mut call).await {
        RequestBody::Complete(request) => request,
        RequestBody::Partial(received) => received,
        RequestBody::Ended(code) => return code,
    };
    let service = match parse_request(&call, encoding, request) {
        Ok(service) => service,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let method = call.streaming_method();
    if let Some(method) = method {
        call.ctx.counters().calls[method].received.inc();
    }
    let Some(_subscriber) = HealthSubscriber::new(&call.ctx.process.health, &call.connection)
    else {
        call.ctx.counters().limit_hit(Limit::HealthWatches);
        let text = "etcd-edge: too many open health watches";
        let status = Status::new(Code::ResourceExhausted, text);
        return reply::trailers_only(&mut call.respond, &status);
    };
    let mut health = call.ctx.process.health.subscribe();
    if service == HealthTarget::Calls {
        start_poller(&call.ctx);
        if let Err(code) = wait_for_first_result(&mut call, &mut health).await {
            return code;
        }
    }
    let Call {
        ctx,
        mut respond,
        deadline,
        log,
        ..
    } = *call;
    let mut head = reply::head();
    encoding.write(head.headers_mut());
    let Ok(stream) = respond.send_response(head, false) else {
        return Code::Cancelled;
    };
    drop(respond);
    let mut watch = HealthWatch {
        ctx,
        service,
        deadline,
        stream,
        method,
        encoding,
        log,
    };
    watch.run(health).await
}

/// Waits until the health of etcd is known.
///
/// # Errors
/// The call ended before; the code of its end.
async fn wait_for_first_result(
    call: &mut Call,
    health: &mut Receiver<Option<bool>>,
) -> Result<(), Code> {
    let ctx = call.ctx.clone();
    let mut first_result = pin!(async {
        // The last known health may be old: without probes, etcd is not checked. An outage is known
        // without a check.
        let mut outage = ctx.pool.endpoints().outage();
        tokio::select! {
            _ = check_etcd(&ctx) => {}
            _ = outage.wait_for(|outage| *outage) => {}
        }
        while health.borrow_and_update().is_none() {
            // A single failure does not decide, see `FailureThreshold`. The sender lives as
            // long as the process.
            let _ = health.changed().await;
        }
    });
    match while_call_open(call, |cx| first_result.as_mut().poll(cx)).await {
        Ok(()) => Ok(()),
        Err(interrupted) => {
            let status = match interrupted {
                Interrupted::ClientGone => return Err(Code::Cancelled),
                Interrupted::Deadline => reply::deadline_exceeded(),
                Interrupted::Drain => reply::shutting_down(),
            };
            Err(reply::trailers_only(&mut call.respond, &status))
        }
    }
}

/// Starts the task that polls etcd, unless it runs already.
fn start_poller(ctx: &Rc<WorkerContext>) {
    let Some(poller) = HealthPoller::new(&ctx.process.health) else {
        return;
    };
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        let mut outage = ctx.pool.endpoints().outage();
        // An outage that began before this poller.
        outage.mark_changed();
        while poller.should_continue() {
            let poll = async {
                // The check publishes its result. After a failure, the next check follows sooner.
                let pause = match check_etcd(&ctx).await {
                    Ok(()) => limits::HEALTH_CHECK_INTERVAL,
                    Err(_) => limits::HEALTH_FAILURE_TTL,
                };
                sleep(pause).await;
            };
            tokio::select! {
                () = poll => {}
                // Clients must not wait for a failed check to learn that the last endpoint is gone.
                // The end of an outage starts the next check. The sender lives as long as the
                // process.
                _ = outage.changed() => {
                    if *outage.borrow_and_update() {
                        ctx.process.health.record_outage();
                    }
                }
            }
        }
    });
}

/// Stream of one client.
struct HealthWatch {
    ctx: Rc<WorkerContext>,
    service: HealthTarget,
    deadline: Option<Instant>,
    stream: SendStream<Payload>,
    /// Index of the method in the metrics.
    method: Option<usize>,
    /// Compression of the responses.
    encoding: Encoding,
    /// Record of the call, if it is logged.
    log: Option<Rc<LoggedCall>>,
}

impl HealthWatch {
    async fn run(&mut self, mut health: Receiver<Option<bool>>) -> Code {
        let drain = self.ctx.drain.clone();
        let mut pump = Pump::new(u64::MAX);
        let mut last_sent = None;
        loop {
            let now = self.serving(*health.borrow_and_update());
            if last_sent != Some(now) {
                last_sent = Some(now);
                pump.offer(self.message(now));
            }
            let mut changed = pin!(health.changed());
            let stream = &mut self.stream;
            let timer = self.ctx.timers.at(self.deadline);
            let result = until_interrupted(timer, Some(&drain), |cx| {
                if stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Interrupted::ClientGone));
                }
                if ready!(pump.poll_offered(cx, stream, false)).is_err() {
                    return Poll::Ready(Err(Interrupted::ClientGone));
                }
                changed.as_mut().poll(cx).map(|_| Ok(()))
            });
            match result.await {
                Ok(()) => {}
                Err(interrupted) => {
                    let must_announce = interrupted == Interrupted::Drain
                        && !matches!(last_sent, Some(Serving::Unknown | Serving::No));
                    if must_announce {
                        // Load balancers stop sending calls at this status already.
                        let message = self.message(Serving::No);
                        let _ = self.stream.send_data(message.into(), false);
                    }
                    return reply::interrupted(&mut self.stream, interrupted);
                }
            }
        }
    }

    /// Encodes a message and counts it as sent.
    fn message(&self, serving: Serving) -> Bytes {
        let mut message = response(serving);
        if self.encoding == Encoding::Gzip {
            message = compression::compress([&message[..]].into_iter()).unwrap_or(message);
        }
        if let Some(log) = &self.log {
            log.count_sent(&message);
        }
        if let Some(method) = self.method {
            self.ctx.counters().calls[method].sent.inc();
        }
        message
    }

    fn serving(&self, health: Option<bool>) -> Serving {
        let is_healthy = match self.service {
            HealthTarget::Unknown => return Serving::Unknown,
            HealthTarget::Calls => health.unwrap_or(false),
            HealthTarget::Process => true,
        };
        match is_healthy && !self.ctx.drain.has_begun() {
            true => Serving::Yes,
            false => Serving::No,
        }
    }
}
