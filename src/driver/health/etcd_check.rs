//! Health checks of etcd with requests that its clients send: a linearizable read and a watch.

use std::future::poll_fn;
use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use crate::driver::WorkerContext;
use crate::driver::call::{RANGE, WATCH};
use crate::driver::etcd::client::{OwnCall, request_head};
use crate::driver::state::check_report::CheckOutcome;
use crate::driver::state::reply;
use crate::limits;
use crate::upstream::attempt;
use crate::wire::frame;
use crate::wire::status::{Code, Status};

/// RangeRequest { key: "a" }: the key that `etcd grpc-proxy` reads.
const RANGE_A: &[u8] = &[0x0a, 1, b'a'];

/// RangeRequest { key: "a", serializable: true }: a member answers it without the others.
const SERIALIZABLE_RANGE_A: &[u8] = &[0x0a, 1, b'a', 0x38, 1];

/// WatchRequest { create_request: { key: "a" } }.
const WATCH_A: &[u8] = &[0x0a, 3, 0x0a, 1, b'a'];

/// Sends a linearizable read and records the result for subscribers. A permission error is a
/// success too: etcd works.
pub(super) async fn read(ctx: Rc<WorkerContext>) -> CheckOutcome {
    let outcome = send_read(&ctx, RANGE_A).await;
    // A response from before an outage is no news.
    if outcome.is_err() || !*ctx.pool.endpoints().outage().borrow() {
        ctx.process.health.record_read(outcome.is_ok());
    }
    outcome
}

/// Sends a serializable read.
pub(super) async fn serializable_read(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    send_read(ctx, SERIALIZABLE_RANGE_A).await
}

async fn send_read(ctx: &Rc<WorkerContext>, request: &'static [u8]) -> CheckOutcome {
    let deadline = Instant::now() + limits::HEALTH_TIME;
    let etcd_call = OwnCall::new(RANGE, None, frame::encode(request)).with_deadline(Some(deadline));
    let result = timeout_at(deadline, etcd_call.send(ctx)).await;
    let status = match result {
        Ok(Ok(response)) => response.status(),
        Ok(Err(status)) => Some(status),
        Err(_) => Some(reply::deadline_exceeded()),
    };
    match status {
        Some(status) if is_healthy(&status) => Ok(()),
        Some(status) => Err(format!("GET ERROR:{}", status.message).into()),
        None => Err("GET ERROR:no status in the response".into()),
    }
}

/// Creates a watcher and waits for the first response.
pub(super) async fn watch(ctx: Rc<WorkerContext>) -> CheckOutcome {
    let deadline = Instant::now() + limits::HEALTH_TIME;
    match timeout_at(deadline, create_watch(&ctx, deadline)).await {
        Ok(Some(())) => Ok(()),
        Ok(None) | Err(_) => Err("WATCH TIMEOUT".into()),
    }
}

async fn create_watch(ctx: &Rc<WorkerContext>, deadline: Instant) -> Option<()> {
    let conn = ctx.pool.connection(deadline).await.ok()?;
    let head = attempt::head(conn.target(), &request_head(WATCH, None), None);
    let mut opened = conn.open(head, false).ok()?;
    opened.body.send_data(frame::encode(WATCH_A), false).ok()?;
    let mut body = opened.response.await.ok()?.into_body();
    let first = poll_fn(|cx| body.poll_data(cx)).await;
    matches!(first, Some(Ok(_))).then_some(())
}

fn is_healthy(status: &Status) -> bool {
    match status.code {
        Code::Ok | Code::PermissionDenied => true,
        Code::InvalidArgument => status.message == "etcdserver: user name is empty",
        _ => false,
    }
}
