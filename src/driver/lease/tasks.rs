//! What each worker does for leases beside its clients' streams.

use std::future::poll_fn;
use std::rc::Rc;

use tokio::time::sleep;

use crate::driver::WorkerContext;
use crate::driver::lease::hub_driver::end_all;
use crate::driver::lease::inbox::hand_in;
use crate::driver::lease::token_check::look_again;
use crate::driver::state::reply;
use crate::limits;

/// Begins all of it.
pub(in crate::driver) fn begin(ctx: &Rc<WorkerContext>) {
    tokio::task::spawn_local(take_work(ctx.clone()));
    tokio::task::spawn_local(take_room(ctx.clone()));
    tokio::task::spawn_local(look_at_tokens(ctx.clone()));
    tokio::task::spawn_local(drain(ctx.clone()));
}

/// What clients have said since the last turn.
async fn take_work(ctx: Rc<WorkerContext>) {
    loop {
        ctx.leases.work.notified().await;
        hand_in(&ctx);
    }
}

/// A client that has taken its answers may be read again.
async fn take_room(ctx: Rc<WorkerContext>) {
    let mut left = Vec::new();
    loop {
        poll_fn(|cx| ctx.leases.board.poll(cx, &mut left)).await;
        for left in left.drain(..) {
            if let Some(client) = ctx.leases.client(left.stream) {
                client.stream.wake();
            }
        }
    }
}

async fn look_at_tokens(ctx: Rc<WorkerContext>) {
    loop {
        sleep(limits::TOKEN_LOOK).await;
        look_again(&ctx);
    }
}

/// At the end of the process every client is told to go elsewhere (S2).
async fn drain(ctx: Rc<WorkerContext>) {
    ctx.drain.begun().await;
    end_all(&ctx, |_| true, &reply::shutting_down());
}
