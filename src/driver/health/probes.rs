//! Health checks behind `/health`, `/proxy/health` and `grpc.health.v1`.

use std::rc::Rc;

use crate::driver::WorkerContext;
use crate::driver::health::etcd_check;
use crate::driver::state::health::{CheckOutcome, SharedCheck};

/// Checks etcd with a linearizable read.
///
/// # Errors
/// The reason of the failure.
pub async fn check_etcd(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    let health = &ctx.process.health;
    SharedCheck::run(
        health,
        |health| &health.read,
        || etcd_check::read(ctx.clone()),
    )
    .await
}

/// Checks the proxy: the read of [`check_etcd`], then the creation of a watcher, then the
/// registration if this proxy registers.
///
/// # Errors
/// The reason of the first failure.
pub async fn check_proxy(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    check_etcd(ctx).await?;
    let health = &ctx.process.health;
    SharedCheck::run(
        health,
        |health| &health.watch,
        || etcd_check::watch(ctx.clone()),
    )
    .await?;
    match ctx.process.fleet.registration_error() {
        Some(reason) => Err(format!("REGISTRATION ERROR:{reason}").into()),
        None => Ok(()),
    }
}
