//! The task of an upstream link: starts its streams and TTL checks, and ticks its hub.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::driver::WorkerContext;
use crate::driver::lease::hub_driver::drive_hub;
use crate::driver::lease::ttl_check::check_ttl;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::lease::upstream_stream::drive;
use crate::net::lazy_timer::LazyTimer;

/// Supervises a link until its hub has neither clients nor streams.
pub(super) async fn supervise(ctx: Rc<WorkerContext>, link: Rc<UpstreamLink>) {
    let mut timer = LazyTimer::new();
    while !link.is_over() {
        for (id, slot) in link.take_new_slots() {
            tokio::task::spawn_local(drive(ctx.clone(), link.clone(), id, slot));
        }
        for lease in link.take_ttl_checks() {
            tokio::task::spawn_local(check_ttl(ctx.clone(), link.clone(), lease));
        }
        if let Some(at) = link.wake_at.get() {
            timer.set(at.into());
        }
        let mut changed = pin!(link.changed.notified());
        let timer_fired = poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            timer.poll(cx).map(|()| true)
        })
        .await;
        if timer_fired {
            link.wake_at.set(None);
            drive_hub(&ctx, &link, |_, _| ());
        }
    }
    ctx.leases
        .links
        .borrow_mut()
        .remove(&link.identity.number());
}
