//! Checks every endpoint at the start and then slowly, so that a wrong address, scheme or
//! certificate and a dead standby are known before the endpoint is needed.
//!
//! One worker checks for the process. An endpoint to which that worker has a connection is not
//! dialed; the connection to another endpoint ends with its check.

use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::limits;
use crate::state_machine::picker::EndpointId;
use crate::upstream::conn::Conn;
use crate::upstream::endpoint_status::MemberReport;
use crate::upstream::target::EndpointTarget;

/// Repeats the checks forever. A new endpoint is checked when it is added. When a connection
/// ends, all endpoints are checked at once, so that the loss of the last one is known (E4).
pub(in crate::driver) async fn run(ctx: Rc<WorkerContext>) {
    let mut changes = ctx.pool.endpoints().changes();
    let mut due: HashMap<EndpointId, Instant> = HashMap::new();
    loop {
        let all = ctx.pool.endpoints().all();
        due.retain(|id, _| all.iter().any(|target| target.id == *id));
        let now = Instant::now();
        let mut checks = JoinSet::new();
        for target in all {
            let at = due.entry(target.id).or_insert(now);
            if *at <= now {
                *at = now + pause();
                checks.spawn_local(check(ctx.clone(), target));
            }
        }
        checks.join_all().await;
        let next = due.values().min().copied();
        tokio::select! {
            () = sleep_until(next.unwrap_or(now + limits::ENDPOINT_CHECK_INTERVAL)) => {}
            // An error is impossible: the endpoints have the sender.
            _ = changes.changed() => {}
            () = ctx.pool.endpoints().check_requested() => due.clear(),
        }
    }
}

/// Returns the time until the next check.
fn pause() -> Duration {
    limits::ENDPOINT_CHECK_INTERVAL.mul_f64(1.0 - 0.2 * fastrand::f64())
}

async fn check(ctx: Rc<WorkerContext>, target: Arc<EndpointTarget>) {
    if let Some(conn) = ctx.pool.usable_connection(target.id) {
        record(&ctx, &target, &conn).await;
        return;
    }
    match ctx.pool.establish(&target).await {
        Err(error) => {
            ctx.pool.endpoints().dial_failed(&target, &error);
            target
                .status
                .lock()
                .checked(None, Instant::now().into_std());
        }
        Ok((conn, driver)) => {
            ctx.pool.endpoints().connected(&target);
            let mut driver = pin!(driver);
            tokio::select! {
                _ = &mut driver => return,
                () = record(&ctx, &target, &conn) => {}
            }
            conn.retire();
            drop(conn);
            // Closes the connection in order.
            let _ = timeout(limits::CLOSE_TIME, driver).await;
        }
    }
}

/// Asks the member for its status and records it. An etcd with auth on may refuse the call: then
/// only the time of the check is recorded.
async fn record(ctx: &Rc<WorkerContext>, target: &EndpointTarget, conn: &Rc<Conn>) {
    let report = timeout(limits::ENDPOINT_CHECK_TIME, report(ctx, conn)).await;
    let report = report.unwrap_or_default();
    target
        .status
        .lock()
        .checked(report, Instant::now().into_std());
}

async fn report(ctx: &Rc<WorkerContext>, conn: &Rc<Conn>) -> Option<MemberReport> {
    for credential in etcd_client::own_credentials(ctx) {
        let sent = Instant::now();
        let Some(status) = etcd_client::member_status(conn, credential.as_ref()).await else {
            continue;
        };
        let header = status.header.unwrap_or_default();
        return Some(MemberReport {
            version: status.version,
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            leader: status.leader,
            is_learner: status.is_learner,
            db_bytes: u64::try_from(status.db_size).unwrap_or(0),
            latency: sent.elapsed(),
        });
    }
    None
}
