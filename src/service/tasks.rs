//! What each worker does beside its clients' calls.

use std::rc::Rc;

use crate::limits;
use crate::machine::picker::Policy;
use crate::service::mail::{Mail, Report};
use crate::service::{Ctx, fleet, leader, lease, sync, watch};

/// Begins all of it.
pub fn begin(ctx: &Rc<Ctx>) {
    tokio::task::spawn_local(take_mail(ctx.clone()));
    watch::tasks::begin(ctx);
    lease::tasks::begin(ctx);
    fleet::tasks::begin(ctx);
    // One worker does what the process does once.
    if ctx.worker == 0 {
        let options = ctx.pool.endpoints().options();
        if !options.sync.is_zero() {
            tokio::task::spawn_local(sync::run(ctx.clone(), options.sync));
        }
        if options.policy == Policy::Leader {
            tokio::task::spawn_local(leader::run(ctx.clone()));
        }
        if options.policy.spreads() {
            tokio::task::spawn_local(compare(ctx.clone()));
        }
    }
}

/// Returns when what must be done before the end of the process is done (S2).
pub async fn end(ctx: &Rc<Ctx>) {
    ctx.fleet.ended().await;
}

/// Endpoints that share calls are held against each other.
async fn compare(ctx: Rc<Ctx>) {
    loop {
        tokio::time::sleep(limits::OUTLIER_TICK).await;
        ctx.pool.endpoints().look();
    }
}

/// Mail from other workers.
async fn take_mail(ctx: Rc<Ctx>) {
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
        watch::work::run(&ctx);
    }
}

/// Does what a worker asks of this one.
fn deliver(ctx: &Rc<Ctx>, mail: Mail) {
    match mail {
        Mail::Watch(mail) => watch::work::deliver(ctx, mail),
        Mail::Lease(mail) => lease::work::deliver(ctx, mail),
        Mail::NoLeader(identity) => {
            watch::work::no_leader(ctx, identity);
            lease::work::no_leader(ctx, identity);
        }
        Mail::Report(to) => {
            // Who asked may have gone.
            let _ = to.send(report(ctx));
        }
    }
}

fn report(ctx: &Ctx) -> Report {
    Report {
        worker: ctx.number(),
        watches: watch::work::report(ctx),
        leases: lease::work::report(ctx),
    }
}
