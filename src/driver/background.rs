//! What each worker does beside its clients' calls.

use std::rc::Rc;

use crate::driver::etcd::{leader_lookup, member_sync};
use crate::driver::state::messages::{Report, WorkerMessage};
use crate::driver::{WorkerContext, fleet, lease, watch};
use crate::limits;
use crate::state_machine::picker::Policy;

/// Begins all of it.
pub fn begin(ctx: &Rc<WorkerContext>) {
    tokio::task::spawn_local(take_mail(ctx.clone()));
    watch::tasks::begin(ctx);
    lease::tasks::begin(ctx);
    fleet::tasks::begin(ctx);
    // One worker does what the process does once.
    if ctx.worker == 0 {
        let options = ctx.pool.endpoints().options();
        if !options.sync.is_zero() {
            tokio::task::spawn_local(member_sync::run(ctx.clone(), options.sync));
        }
        if options.policy == Policy::Leader {
            tokio::task::spawn_local(leader_lookup::run(ctx.clone()));
        }
        if options.policy.spreads() {
            tokio::task::spawn_local(compare(ctx.clone()));
        }
    }
}

/// Returns when what must be done before the end of the process is done (S2).
pub async fn end(ctx: &Rc<WorkerContext>) {
    ctx.fleet.ended().await;
}

/// Endpoints that share calls are held against each other.
async fn compare(ctx: Rc<WorkerContext>) {
    loop {
        tokio::time::sleep(limits::OUTLIER_TICK).await;
        ctx.pool.endpoints().look();
    }
}

/// Mail from other workers.
async fn take_mail(ctx: Rc<WorkerContext>) {
    let worker = ctx.number();
    let Some(mut receiver) = ctx.shared.receiver(worker) else {
        return;
    };
    while let Some(first) = receiver.recv().await {
        let mut next = Some(first);
        while let Some(mail) = next {
            ctx.shared.received(worker, &mail);
            deliver(&ctx, mail);
            next = receiver.try_recv().ok();
        }
        watch::hub_driver::run(&ctx);
    }
}

/// Does what a worker asks of this one.
fn deliver(ctx: &Rc<WorkerContext>, mail: WorkerMessage) {
    match mail {
        WorkerMessage::Watch(mail) => watch::hub_driver::deliver(ctx, mail),
        WorkerMessage::Lease(mail) => lease::inbox::deliver(ctx, mail),
        WorkerMessage::NoLeader(identity) => {
            watch::hub_driver::no_leader(ctx, identity);
            lease::inbox::no_leader(ctx, identity);
        }
        WorkerMessage::Report(to) => {
            // Who asked may have gone.
            let _ = to.send(report(ctx));
        }
    }
}

fn report(ctx: &WorkerContext) -> Report {
    Report {
        worker: ctx.number(),
        watches: watch::hub_driver::report(ctx),
        leases: lease::inbox::report(ctx),
    }
}
