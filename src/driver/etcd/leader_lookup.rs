//! Where the leader serves (`--endpoint-policy=leader`): asks who leads, every so often and when the
//! endpoint that serves has failed.
//!
//! Only what a member says of itself counts: the others may name one that is gone. Where no one says
//! so, or nobody may ask, any endpoint serves as without the policy.

use std::rc::Rc;

use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::limits;
use crate::state_machine::picker::{EndpointId, Standing};
use crate::wire::pb::etcdserverpb::StatusResponse;

/// Asks again and again.
pub(in crate::driver) async fn run(ctx: Rc<WorkerContext>) {
    let mut said = false;
    let endpoints = ctx.pool.endpoints();
    loop {
        let leader = search(&ctx).await;
        if let Some(leader) = leader {
            endpoints.leads(leader);
        } else if !said {
            warn!("no endpoint is the leader: using any endpoint");
        }
        said = leader.is_none();
        let pause = match leader {
            Some(_) => limits::LEADER_LOOK,
            None => limits::LEADER_SEARCH,
        };
        // Sooner, when the one that serves has failed.
        let _ = timeout(pause, endpoints.lost()).await;
    }
}

/// The endpoint that says that it leads, the one that serves asked first.
async fn search(ctx: &Rc<WorkerContext>) -> Option<EndpointId> {
    let endpoints = ctx.pool.endpoints();
    // Who rests from a failure is left in peace.
    let all = endpoints.standings();
    let awake = all
        .iter()
        .filter(|(_, standing)| *standing != Standing::Backoff);
    let mut all: Vec<EndpointId> = awake.map(|(target, _)| target.id).collect();
    let current = endpoints.current();
    all.sort_by_key(|id| Some(*id) != current);
    for endpoint in all {
        let asked = timeout(limits::HEALTH_TIME, leads(ctx, endpoint)).await;
        if asked.is_ok_and(|leads| leads) {
            return Some(endpoint);
        }
    }
    None
}

async fn leads(ctx: &Rc<WorkerContext>, endpoint: EndpointId) -> bool {
    let until = Instant::now() + limits::HEALTH_TIME;
    let Some(conn) = ctx.pool.to(endpoint, until).await else {
        return false;
    };
    for credential in etcd_client::nobody_or_a_client(ctx) {
        let answer = etcd_client::status(&conn, credential.as_ref()).await;
        if let Some(StatusResponse { header, leader, .. }) = answer {
            let own = header.map_or(0, |header| header.member_id);
            return leader != 0 && leader == own;
        }
    }
    false
}
