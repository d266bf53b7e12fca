//! Whether etcd answers, asked as its clients would: a linearizable read, and a watch.

use std::future::poll_fn;
use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use crate::driver::WorkerContext;
use crate::driver::call::{RANGE, WATCH};
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::hedged_read::{HedgedRead, PriorAttempt};
use crate::driver::state::health::CheckOutcome;
use crate::driver::state::reply;
use crate::limits;
use crate::upstream::attempt;
use crate::wire::frame;
use crate::wire::status::{Code, Status};

/// RangeRequest { key: "a" }, the key that etcd's own proxy asks for.
const RANGE_A: &[u8] = &[0x0a, 1, b'a'];

/// WatchRequest { create_request: { key: "a" } }.
const WATCH_A: &[u8] = &[0x0a, 3, 0x0a, 1, b'a'];

/// A linearizable read; on failure the reason. A refusal for lack of permission is an answer
/// too: etcd is well.
pub(super) async fn read(ctx: Rc<WorkerContext>) -> CheckOutcome {
    let outcome = ask(&ctx).await;
    ctx.process.health.record_read(outcome.is_ok());
    outcome
}

async fn ask(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    let until = Instant::now() + limits::HEALTH_TIME;
    let head = etcd_client::request_head(RANGE, None);
    let request = [frame::encode(RANGE_A)];
    let read = HedgedRead {
        ctx,
        head: &head,
        deadline: Some(until),
        request: &request,
        raw_keys: false,
    };
    let answered = timeout_at(until, read.fetch(PriorAttempt::NotSent)).await;
    let status = match answered {
        Ok(Ok(answer)) => answer.status(),
        Ok(Err(status)) => Some(status),
        Err(_) => Some(reply::deadline_exceeded()),
    };
    match status {
        Some(status) if is_healthy(&status) => Ok(()),
        Some(status) => Err(format!("GET ERROR:{}", status.message).into()),
        None => Err("GET ERROR:no status in the response".into()),
    }
}

/// A watch whose creation is answered.
pub(super) async fn watch(ctx: Rc<WorkerContext>) -> CheckOutcome {
    let until = Instant::now() + limits::HEALTH_TIME;
    match timeout_at(until, created(&ctx, until)).await {
        Ok(Some(())) => Ok(()),
        Ok(None) | Err(_) => Err("WATCH TIMEOUT".into()),
    }
}

async fn created(ctx: &Rc<WorkerContext>, until: Instant) -> Option<()> {
    let conn = ctx.pool.connection(until).await.ok()?;
    let head = attempt::head(conn.target(), &etcd_client::request_head(WATCH, None), None);
    let mut taken = conn.open(head, false).ok()?;
    taken.body.send_data(frame::encode(WATCH_A), false).ok()?;
    let mut body = taken.response.await.ok()?.into_body();
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
