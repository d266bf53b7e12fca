//! What whoever wants to know how well the proxy is asks.

use std::rc::Rc;

use crate::service::Ctx;
use crate::service::health::etcd;
use crate::service::health::state::{Outcome, Question};

/// Whether a linearizable read is answered; on failure the reason.
pub async fn read(ctx: &Rc<Ctx>) -> Outcome {
    let health = &ctx.shared.health;
    Question::ask(health, |health| &health.read, || etcd::read(ctx.clone())).await
}

/// The proxy's own: the read, then a watch whose creation is answered, and that it is registered where it
/// should be.
pub async fn of_proxy(ctx: &Rc<Ctx>) -> Outcome {
    read(ctx).await?;
    let health = &ctx.shared.health;
    Question::ask(health, |health| &health.watch, || etcd::watch(ctx.clone())).await?;
    match ctx.shared.fleet.trouble() {
        Some(why) => Err(format!("REGISTRATION ERROR:{why}").into()),
        None => Ok(()),
    }
}
