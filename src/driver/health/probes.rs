//! Health checks behind `/health`, `/livez`, `/readyz`, the same below `/proxy/`, and
//! `grpc.health.v1`.

use std::borrow::Cow;
use std::rc::Rc;

use crate::driver::WorkerContext;
use crate::driver::health::{etcd_check, etcd_pages};
use crate::driver::state::check_report::{CheckOutcome, CheckReport};
use crate::driver::state::health::SharedCheck;

/// Checks etcd with a linearizable read.
///
/// # Errors
/// The reason of the failure.
pub async fn check_etcd(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    let health = &ctx.process.health;
    let outcome = SharedCheck::run(
        health,
        |health| &health.read,
        || etcd_check::read(ctx.clone()),
    )
    .await;
    // A recent success may be from before an outage.
    match *ctx.pool.endpoints().outage().borrow() {
        true => outcome.and(Err("GET ERROR:no endpoint can be reached".into())),
        false => outcome,
    }
}

/// Checks the proxy: the read of [`check_etcd`], then the creation of a watcher, then the
/// registration if this proxy registers.
///
/// # Errors
/// The reason of the first failure.
pub async fn check_proxy(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    check_etcd(ctx).await?;
    check_watch(ctx).await?;
    check_registration(ctx)
}

/// Returns the checks of `/livez` of etcd.
pub async fn check_livez(ctx: &Rc<WorkerContext>) -> CheckReport {
    let health = &ctx.process.health;
    SharedCheck::run(
        health,
        |health| &health.livez,
        || {
            let ctx = ctx.clone();
            async move {
                etcd_pages::LIVEZ
                    .report(&ctx, etcd_check::serializable_read(&ctx))
                    .await
            }
        },
    )
    .await
}

/// Returns the checks of `/readyz` of etcd.
pub async fn check_readyz(ctx: &Rc<WorkerContext>) -> CheckReport {
    let health = &ctx.process.health;
    SharedCheck::run(
        health,
        |health| &health.readyz,
        || {
            let ctx = ctx.clone();
            async move { etcd_pages::READYZ.report(&ctx, check_etcd(&ctx)).await }
        },
    )
    .await
}

/// Returns the checks of `/proxy/livez`: the process responds. A restart of the proxy would repair
/// nothing else.
pub fn proxy_livez() -> CheckReport {
    CheckReport::new([("ping".into(), Ok(()))])
}

/// Returns the checks of `/proxy/readyz` with `wanted` names: the process accepts calls, and the
/// parts of [`check_proxy`].
pub async fn proxy_readyz(ctx: &Rc<WorkerContext>, wanted: impl Fn(&str) -> bool) -> CheckReport {
    let accepts_calls = async {
        match ctx.drain.has_begun() {
            true => Err("etcd-edge is shutting down".into()),
            false => Ok(()),
        }
    };
    let wanted = &wanted;
    let (accepts_calls, read, watch, registration) = tokio::join!(
        run_if(wanted, "accepts_calls", accepts_calls),
        run_if(wanted, "linearizable_read", check_etcd(ctx)),
        run_if(wanted, "watch", check_watch(ctx)),
        run_if(wanted, "registration", async { check_registration(ctx) }),
    );
    let results = [accepts_calls, read, watch, registration];
    CheckReport::new(results.into_iter().flatten())
}

async fn run_if(
    wanted: impl Fn(&str) -> bool,
    name: &'static str,
    check: impl Future<Output = CheckOutcome>,
) -> Option<(Cow<'static, str>, CheckOutcome)> {
    match wanted(name) {
        true => Some((name.into(), check.await)),
        false => None,
    }
}

async fn check_watch(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    let health = &ctx.process.health;
    SharedCheck::run(
        health,
        |health| &health.watch,
        || etcd_check::watch(ctx.clone()),
    )
    .await
}

fn check_registration(ctx: &Rc<WorkerContext>) -> CheckOutcome {
    match ctx.process.fleet.registration_error() {
        Some(reason) => Err(format!("REGISTRATION ERROR:{reason}").into()),
        None => Ok(()),
    }
}
