//! Background tasks of each worker for leases.

use std::future::poll_fn;
use std::rc::Rc;

use tokio::time::sleep;

use crate::driver::WorkerContext;
use crate::driver::lease::hub_driver::end_streams;
use crate::driver::lease::inbox::send_inputs;
use crate::driver::lease::token_check::recheck_tokens;
use crate::driver::state::reply;
use crate::limits;

/// Starts all tasks.
pub(in crate::driver) fn begin(ctx: &Rc<WorkerContext>) {
    tokio::task::spawn_local(process_inbox(ctx.clone()));
    tokio::task::spawn_local(release_capacity(ctx.clone()));
    tokio::task::spawn_local(recheck_tokens_periodically(ctx.clone()));
    tokio::task::spawn_local(drain(ctx.clone()));
}

/// Delivers the inputs that client streams have queued since the last turn.
async fn process_inbox(ctx: Rc<WorkerContext>) {
    loop {
        ctx.leases.inbox_ready.notified().await;
        send_inputs(&ctx);
    }
}

/// Wakes streams as their bytes leave towards the client, so that more requests are read.
async fn release_capacity(ctx: Rc<WorkerContext>) {
    let mut sent = Vec::new();
    loop {
        poll_fn(|cx| ctx.leases.send_notifier.poll(cx, &mut sent)).await;
        for sent in sent.drain(..) {
            if let Some(client) = ctx.leases.client(sent.stream) {
                client.stream.wake();
            }
        }
    }
}

async fn recheck_tokens_periodically(ctx: Rc<WorkerContext>) {
    loop {
        sleep(limits::TOKEN_CHECK_INTERVAL).await;
        recheck_tokens(&ctx);
    }
}

/// Ends all streams with UNAVAILABLE when the process drains, so that clients reconnect elsewhere
/// (S2).
async fn drain(ctx: Rc<WorkerContext>) {
    ctx.drain.begun().await;
    end_streams(&ctx, |_| true, &reply::shutting_down());
}
