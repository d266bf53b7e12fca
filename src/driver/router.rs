//! A call from its arrival to its end: admitted, given to its driver, counted.

use std::rc::Rc;

use tokio::time::Instant;

use crate::call_log::open_call::LoggedCall;
use crate::driver::call::Call;
use crate::driver::state::reply;
use crate::driver::{WorkerContext, health, lease, namespaced, relay, unary, watch};
use crate::limits;
use crate::metrics::{CallMetrics, Limit};
use crate::wire::method::{Kind, Method};
use crate::wire::status::{Code, Status};

/// Begins to serve a call, as a task of its own. Each way of serving is a future of its own size,
/// which is what an open stream keeps, and boxed: the runtime copies what it is given several
/// times, at the spawn and at the end. A block holds the call once, an `async fn` would hold it
/// twice.
pub fn spawn(mut call: Box<Call>) {
    if call.ctx.shared.observer().is_some() {
        observe(&mut call);
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
            counted.ended(call.method, code);
        }));
    } else if call.is_watch() {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let method = call.method;
            let code = watch::serve(call).await;
            counted.ended(method, code);
        }));
    } else if call.is_keep_alive() {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let method = call.method;
            let code = lease::serve(call).await;
            counted.ended(method, code);
        }));
    } else if call.is_health() {
        // The unary ones are reads.
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let method = call.method;
            let code = health::follow(call).await;
            counted.ended(method, code);
        }));
    } else if namespaced::is_looked_at(&call) {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let code = namespaced::serve(&mut call).await;
            counted.ended(call.method, code);
        }));
    } else {
        tokio::task::spawn_local(Box::pin(async move {
            let Some(counted) = admit(&mut call) else {
                return;
            };
            let code = relay::serve(&mut call, Vec::new()).await;
            counted.ended(call.method, code);
        }));
    }
}

/// Notes what is to be told of a call.
#[cold]
fn observe(call: &mut Call) {
    let Call {
        ctx, peer, head, ..
    } = call;
    let observer = ctx.shared.observer();
    let who = peer.who().cloned();
    call.record =
        observer.and_then(|observer| observer.begin(head.uri.path(), &mut head.headers, who));
}

/// Counts a call in, or refuses it.
fn admit(call: &mut Call) -> Option<OpenCall> {
    let counted = OpenCall::new(call);
    counters(&call.ctx, call.method).started.inc();
    let Some(status) = refusal(call, counted.began) else {
        return Some(counted);
    };
    let code = reply::trailers_only(&mut call.respond, &status);
    counted.ended(call.method, code);
    None
}

fn counters<'a>(ctx: &'a WorkerContext, method: Option<&Method>) -> &'a CallMetrics {
    let calls = &ctx.count().calls;
    &calls[method.map_or(calls.len() - 1, |method| method.index)]
}

fn refusal(call: &Call, now: Instant) -> Option<Status> {
    if call.head.headers.len() > limits::HEADER_FIELDS {
        call.ctx.count().hit(Limit::HeaderFields);
        let text = format!("more than {} header fields", limits::HEADER_FIELDS);
        return Some(Status::new(Code::ResourceExhausted, text));
    }
    // Over before it arrived: etcd would not serve it either, and a write is better not begun.
    if call.deadline.is_some_and(|at| at <= now) {
        return Some(reply::deadline_exceeded());
    }
    if let Some(status) = namespaced::refused(call) {
        return Some(status);
    }
    if call.ctx.open_calls.get() > limits::MAX_CALLS_PER_WORKER {
        call.ctx.count().hit(Limit::Calls);
        return Some(Status::new(
            Code::ResourceExhausted,
            "etcd-edge: too many open calls",
        ));
    }
    None
}

/// Counts a call as open while it lives.
struct OpenCall {
    ctx: Rc<WorkerContext>,
    record: Option<Rc<LoggedCall>>,
    began: Instant,
}

impl OpenCall {
    fn new(call: &Call) -> OpenCall {
        let ctx = call.ctx.clone();
        ctx.open_calls.set(ctx.open_calls.get() + 1);
        ctx.count().open_calls.inc();
        OpenCall {
            ctx,
            record: call.record.clone(),
            began: Instant::now(),
        }
    }

    fn ended(self, method: Option<&Method>, code: Code) {
        let count = counters(&self.ctx, method);
        count.handled[usize::from(code.as_u8())].inc();
        if method.is_some_and(|method| method.kind == Kind::Unary) {
            count.took(self.began.elapsed());
        }
        if let Some(record) = &self.record
            && let Some(observer) = self.ctx.shared.observer()
        {
            observer.end(record, code);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.ctx.open_calls.set(self.ctx.open_calls.get() - 1);
        self.ctx.count().open_calls.dec();
    }
}
