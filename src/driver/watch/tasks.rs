//! Background tasks of each worker for watches.

use std::future::poll_fn;
use std::rc::Rc;

use tokio::time::sleep_until;

use crate::driver::WorkerContext;
use crate::driver::state::reply;
use crate::driver::watch::cache_proofs;
use crate::driver::watch::hub_driver::{drive_hub, end_streams};
use crate::state_machine::watch::hub::StreamId;

/// Starts all tasks.
pub(in crate::driver) fn begin(ctx: &Rc<WorkerContext>) {
    tokio::task::spawn_local(process_inbox(ctx.clone()));
    tokio::task::spawn_local(release_capacity(ctx.clone()));
    tokio::task::spawn_local(run_timer(ctx.clone()));
    tokio::task::spawn_local(drain(ctx.clone()));
    tokio::task::spawn_local(cache_proofs::run(ctx.clone()));
}

/// Drives the hub whenever it has work. The task of a client stream does so as well before it ends
/// its stream with a status.
async fn process_inbox(ctx: Rc<WorkerContext>) {
    loop {
        ctx.watches.outbox.ready().await;
        drive_hub(&ctx);
    }
}

/// Returns send capacity to streams as their bytes leave towards the client.
async fn release_capacity(ctx: Rc<WorkerContext>) {
    let mut sent = Vec::new();
    loop {
        poll_fn(|cx| ctx.watches.send_notifier().poll(cx, &mut sent)).await;
        ctx.watches.with_hub(|hub| {
            for sent in sent.drain(..) {
                hub.add_capacity(StreamId::from_number(sent.stream), sent.bytes);
            }
        });
    }
}

/// Ticks the hub at the time that it requests.
async fn run_timer(ctx: Rc<WorkerContext>) {
    loop {
        let timer_changed = ctx.watches.timer_changed.notified();
        match ctx.watches.wake_at.get() {
            None => timer_changed.await,
            Some(at) => tokio::select! {
                () = timer_changed => {}
                () = sleep_until(at.into()) => {
                    ctx.watches.wake_at.set(None);
                    ctx.watches.outbox.notify();
                }
            },
        }
    }
}

/// Ends all watches with UNAVAILABLE when the process drains, so that clients reconnect elsewhere
/// (S2).
async fn drain(ctx: Rc<WorkerContext>) {
    ctx.drain.begun().await;
    end_streams(&ctx, |_| true, &reply::shutting_down());
}
