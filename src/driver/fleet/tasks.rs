//! Background tasks of the fleet.

use std::rc::Rc;

use crate::driver::WorkerContext;
use crate::driver::fleet::{members, registration};

/// Starts the registration and the watch of registered proxies, on worker 0 only.
pub(in crate::driver) fn start(ctx: &Rc<WorkerContext>) {
    if ctx.worker_number() != 0 || ctx.process.fleet.resolver.is_none() {
        return;
    }
    ctx.fleet.set_registering(true);
    let task_ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        if let Some(resolver) = &task_ctx.process.fleet.resolver {
            registration::run(&task_ctx, resolver).await;
        }
        task_ctx.fleet.set_registering(false);
    });
    let task_ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        if let Some(resolver) = &task_ctx.process.fleet.resolver {
            members::follow(&task_ctx, resolver).await;
        }
    });
}
