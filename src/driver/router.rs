//! Call router: admits a call, passes it to its driver, and counts it until its end.

use std::rc::Rc;

use tokio::time::Instant;

use crate::call_log::open_call::LoggedCall;
use crate::driver::call::Call;
use crate::driver::state::reply;
use crate::driver::{WorkerContext, health, lease, namespaced, relay, unary, watch};
use crate::limits;
use crate::metrics::{CallMetrics, Limit};
use crate::wire::method::{Method, MethodKind};
use crate::wire::status::{Code, Status};

/// Serves a call in a task of its own.
///
/// Each driver is a separate future, because an open stream occupies the memory of its future. The
/// future is boxed, because the runtime copies it several times at spawn and at the end. An async
/// block contains the call once; an `async fn` would contain it twice.
pub fn spawn(mut call: Box<Call>) {
    if call.ctx.process.observer().is_some() {
        start_log(&mut call);
    }
    if call.is_unary_read() {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let code = match unary::serve(&mut call).await {
                Ok(code) => code,
                Err(received) => Box::pin(relay::serve(&mut call, received)).await,
            };
            counted.finish(call.method, code);
        }));
    } else if call.is_watch() {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let method = call.method;
            let code = watch::serve(call).await;
            counted.finish(method, code);
        }));
    } else if call.is_keep_alive() {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let method = call.method;
            let code = lease::serve(call).await;
            counted.finish(method, code);
        }));
    } else if call.is_health() {
        // Unary health calls are unary reads, served above.
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let method = call.method;
            let code = health::serve_watch(call).await;
            counted.finish(method, code);
        }));
    } else if namespaced::needs_inspection(&call) {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let code = namespaced::serve(&mut call).await;
            counted.finish(call.method, code);
        }));
    } else {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let code = relay::serve(&mut call, Vec::new()).await;
            counted.finish(call.method, code);
        }));
    }
}

/// Starts the call log entry of a call.
#[cold]
fn start_log(call: &mut Call) {
    let Call {
        ctx,
        connection,
        head,
        ..
    } = call;
    let observer = ctx.process.observer();
    let client_info = connection.client_info().cloned();
    call.log = observer
        .and_then(|observer| observer.begin(head.uri.path(), &mut head.headers, client_info));
}

/// Counts a call and returns its guard, or refuses the call and returns `None`.
fn admit(call: &mut Call) -> Option<OpenCall> {
    let counted = OpenCall::new(call);
    call_counters(&call.ctx, call.method).started.inc();
    let Some(status) = refusal(call, counted.started) else {
        return Some(counted);
    };
    let code = reply::trailers_only(&mut call.respond, &status);
    counted.finish(call.method, code);
    None
}

fn call_counters<'a>(ctx: &'a WorkerContext, method: Option<&Method>) -> &'a CallMetrics {
    let calls = &ctx.counters().calls;
    &calls[method.map_or(calls.len() - 1, |method| method.index)]
}

fn refusal(call: &Call, now: Instant) -> Option<Status> {
    if call.head.headers.len() > limits::HEADER_FIELDS {
        call.ctx.counters().limit_hit(Limit::HeaderFields);
        let text = format!("more than {} header fields", limits::HEADER_FIELDS);
        return Some(Status::new(Code::ResourceExhausted, text));
    }
    // The deadline passed before the call arrived. etcd would refuse it too, and a write must not
    // start.
    if call.deadline.is_some_and(|at| at <= now) {
        return Some(reply::deadline_exceeded());
    }
    if let Some(status) = namespaced::refusal(call) {
        return Some(status);
    }
    if call.ctx.open_calls.get() > limits::MAX_CALLS_PER_WORKER {
        call.ctx.counters().limit_hit(Limit::Calls);
        return Some(Status::new(
            Code::ResourceExhausted,
            "etcd-edge: too many open calls",
        ));
    }
    None
}

/// Counts a call as open until it is dropped.
struct OpenCall {
    ctx: Rc<WorkerContext>,
    log: Option<Rc<LoggedCall>>,
    started: Instant,
}

impl OpenCall {
    fn new(call: &Call) -> OpenCall {
        let ctx = call.ctx.clone();
        ctx.open_calls.set(ctx.open_calls.get() + 1);
        ctx.counters().open_calls.inc();
        OpenCall {
            ctx,
            log: call.log.clone(),
            started: Instant::now(),
        }
    }

    fn finish(self, method: Option<&Method>, code: Code) {
        let metrics = call_counters(&self.ctx, method);
        metrics.handled[usize::from(code.as_u8())].inc();
        if method.is_some_and(|method| method.kind == MethodKind::Unary) {
            metrics.observe_duration(self.started.elapsed());
        }
        if let Some(log) = &self.log
            && let Some(observer) = self.ctx.process.observer()
        {
            observer.end(log, code);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.ctx.open_calls.set(self.ctx.open_calls.get() - 1);
        self.ctx.counters().open_calls.dec();
    }
}
