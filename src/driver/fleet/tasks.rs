//! What one worker does for the fleet.

use std::rc::Rc;

use crate::driver::WorkerContext;
use crate::driver::fleet::{members, registration};

/// Begins both tasks, on one worker.
pub(in crate::driver) fn begin(ctx: &Rc<WorkerContext>) {
    if ctx.number() != 0 || ctx.shared.fleet.resolver.is_none() {
        return;
    }
    ctx.fleet.set_registering(true);
    let of = ctx.clone();
    tokio::task::spawn_local(async move {
        if let Some(resolver) = &of.shared.fleet.resolver {
            registration::run(&of, resolver).await;
        }
        of.fleet.set_registering(false);
    });
    let of = ctx.clone();
    tokio::task::spawn_local(async move {
        if let Some(resolver) = &of.shared.fleet.resolver {
            members::follow(&of, resolver).await;
        }
    });
}
