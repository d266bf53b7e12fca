//! Background tasks that a worker runs beside client calls.

use std::rc::Rc;

use crate::driver::etcd::{endpoint_check, leader_lookup, member_sync};
use crate::driver::state::messages::{WorkerMessage, WorkerReport};
use crate::driver::{WorkerContext, fleet, lease, watch};
use crate::limits;
use crate::state_machine::picker::EndpointPolicy;

/// Starts all background tasks of a worker.
pub fn start(ctx: &Rc<WorkerContext>) {
    tokio::task::spawn_local(run_inbox(ctx.clone()));
    watch::tasks::begin(ctx);
    lease::tasks::begin(ctx);
    fleet::tasks::start(ctx);
    // Worker 0 runs the tasks of which the process needs one.
    if ctx.worker == 0 {
        tokio::task::spawn_local(endpoint_check::run(ctx.clone()));
        let options = ctx.pool.endpoints().options();
        if !options.sync.is_zero() {
            tokio::task::spawn_local(member_sync::run(ctx.clone(), options.sync));
        }
        if options.policy == EndpointPolicy::Leader {
            tokio::task::spawn_local(leader_lookup::run(ctx.clone()));
        }
        if options.policy.balances() {
            tokio::task::spawn_local(run_outlier_detection(ctx.clone()));
        }
    }
}

/// Waits until the worker may end: this proxy must be deregistered first (S2).
pub async fn wait_for_end(ctx: &Rc<WorkerContext>) {
    ctx.fleet.registration_ended().await;
}

/// Ejects the outliers among balanced endpoints, once per [`limits::OUTLIER_TICK`].
async fn run_outlier_detection(ctx: Rc<WorkerContext>) {
    loop {
        tokio::time::sleep(limits::OUTLIER_TICK).await;
        ctx.pool.endpoints().detect_outliers();
    }
}

/// Handles messages from other workers.
async fn run_inbox(ctx: Rc<WorkerContext>) {
    let worker = ctx.worker_number();
    let Some(mut receiver) = ctx.process.take_inbox(worker) else {
        return;
    };
    while let Some(first) = receiver.recv().await {
        let mut next = Some(first);
        while let Some(message) = next {
            ctx.process.message_taken(worker, &message);
            deliver(&ctx, message);
            next = receiver.try_recv().ok();
        }
        // The hub applies the events of this batch before the next batch arrives, so that events
        // do not pile up where `INBOX_EVENT_BYTES` does not count them.
        tokio::task::yield_now().await;
    }
}

/// Handles one message from another worker.
fn deliver(ctx: &Rc<WorkerContext>, message: WorkerMessage) {
    match message {
        WorkerMessage::Watch(message) => watch::hub_driver::deliver(ctx, message),
        WorkerMessage::Lease(message) => lease::inbox::deliver(ctx, message),
        WorkerMessage::NoLeader(identity) => {
            watch::hub_driver::no_leader(ctx, identity);
            lease::inbox::no_leader(ctx, identity);
        }
        WorkerMessage::Report(to) => {
            // An error means that the receiver no longer waits for the report.
            let _ = to.send(report(ctx));
        }
    }
}

fn report(ctx: &WorkerContext) -> WorkerReport {
    WorkerReport {
        worker: ctx.worker_number(),
        watches: watch::hub_driver::report(ctx),
        leases: lease::inbox::report(ctx),
    }
}
