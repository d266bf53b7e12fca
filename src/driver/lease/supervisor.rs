//! The task of a line: starts its lanes and what is asked of etcd, and tells its hub the time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::driver::WorkerContext;
use crate::driver::lease::hub_driver::turn;
use crate::driver::lease::ttl_check::examine;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::driver::lease::upstream_stream::drive;
use crate::net::lazy_timer::LazyTimer;

/// Keeps a line for as long as there is something left of it.
pub(super) async fn keep(ctx: Rc<WorkerContext>, line: Rc<UpstreamLink>) {
    let mut alarm = LazyTimer::new();
    while !line.is_over() {
        for lane in line.take_fresh() {
            tokio::task::spawn_local(drive(ctx.clone(), line.clone(), lane));
        }
        for lease in line.take_exams() {
            tokio::task::spawn_local(examine(ctx.clone(), line.clone(), lease));
        }
        if let Some(at) = line.wake_at.get() {
            alarm.set(at.into());
        }
        let mut rearm = pin!(line.rearm.notified());
        let rings = poll_fn(|cx| {
            if rearm.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            alarm.poll(cx).map(|()| true)
        })
        .await;
        if rings {
            line.wake_at.set(None);
            turn(&ctx, &line, |_, _| ());
        }
    }
    ctx.leases.lines.borrow_mut().remove(&line.login.number());
}
