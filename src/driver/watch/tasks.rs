//! What each worker does for watches beside its clients' streams.

use std::future::poll_fn;
use std::rc::Rc;

use tokio::time::sleep_until;

use crate::driver::WorkerContext;
use crate::driver::state::reply;
use crate::driver::watch::cache_proofs;
use crate::driver::watch::hub_driver::{end_streams, run};
use crate::state_machine::watch::hub::StreamId;

/// Begins all of it.
pub(in crate::driver) fn begin(ctx: &Rc<WorkerContext>) {
    tokio::task::spawn_local(take_work(ctx.clone()));
    tokio::task::spawn_local(take_room(ctx.clone()));
    tokio::task::spawn_local(clock(ctx.clone()));
    tokio::task::spawn_local(drain(ctx.clone()));
    tokio::task::spawn_local(cache_proofs::beats(ctx.clone()));
}

/// What lines and checks have left in the inbox.
async fn take_work(ctx: Rc<WorkerContext>) {
    loop {
        ctx.watches.work.notified().await;
        run(&ctx);
    }
}

/// What has left towards clients is room for more.
async fn take_room(ctx: Rc<WorkerContext>) {
    let mut left = Vec::new();
    loop {
        poll_fn(|cx| ctx.watches.board().poll(cx, &mut left)).await;
        let mut hub = ctx.watches.hub.borrow_mut();
        for left in left.drain(..) {
            hub.room(StreamId::from_number(left.stream), left.bytes);
        }
        drop(hub);
        run(&ctx);
    }
}

/// Tells the hub the time when it wants to know.
async fn clock(ctx: Rc<WorkerContext>) {
    loop {
        let rearm = ctx.watches.rearm.notified();
        match ctx.watches.alarm.get() {
            None => rearm.await,
            Some(at) => tokio::select! {
                () = rearm => {}
                () = sleep_until(at.into()) => {
                    ctx.watches.alarm.set(None);
                    run(&ctx);
                }
            },
        }
    }
}

/// At the end of the process every watch is told to go elsewhere (S2).
async fn drain(ctx: Rc<WorkerContext>) {
    ctx.drain.begun().await;
    end_streams(&ctx, |_| true, &reply::shutting_down());
    run(&ctx);
}
