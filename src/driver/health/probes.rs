//! What whoever wants to know how well the proxy is asks.

use std::rc::Rc;

use crate::driver::WorkerContext;
use crate::driver::health::etcd_check;
use crate::driver::state::health::{Outcome, Question};

/// Whether a linearizable read is answered; on failure the reason.
pub async fn read(ctx: &Rc<WorkerContext>) -> Outcome {
    let health = &ctx.shared.health;
    Question::ask(
        health,
        |health| &health.read,
        || etcd_check::read(ctx.clone()),
    )
    .await
}

/// The proxy's own: the read, then a watch whose creation is answered, and that it is registered where it
/// should be.
pub async fn of_proxy(ctx: &Rc<WorkerContext>) -> Outcome {
    read(ctx).await?;
    let health = &ctx.shared.health;
    Question::ask(
        health,
        |health| &health.watch,
        || etcd_check::watch(ctx.clone()),
    )
    .await?;
    match ctx.shared.fleet.trouble() {
        Some(why) => Err(format!("REGISTRATION ERROR:{why}").into()),
        None => Ok(()),
    }
}
