//! Finds the endpoint of the leader (`--endpoint-policy=leader`), periodically and when the
//! selected endpoint fails.
//!
//! A member counts as the leader only by its own status: other members may name one that has
//! failed. If no member confirms it, or etcd refuses the status call, any endpoint is used, as
//! without the policy.

use std::rc::Rc;

use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::limits;
use crate::state_machine::picker::{EndpointId, EndpointState};
use crate::wire::pb::etcdserverpb::StatusResponse;

/// Repeats the lookup forever: every [`limits::LEADER_CHECK_INTERVAL`] while the leader is known, otherwise
/// every [`limits::LEADER_SEARCH_INTERVAL`].
pub(in crate::driver) async fn run(ctx: Rc<WorkerContext>) {
    let mut warned = false;
    let endpoints = ctx.pool.endpoints();
    loop {
        let leader = find_leader(&ctx).await;
        if let Some(leader) = leader {
            endpoints.set_leader(leader);
        } else if !warned {
            warn!("no endpoint is the leader: using any endpoint");
        }
        warned = leader.is_none();
        let pause = match leader {
            Some(_) => limits::LEADER_CHECK_INTERVAL,
            None => limits::LEADER_SEARCH_INTERVAL,
        };
        // Earlier if the selected endpoint fails.
        let _ = timeout(pause, endpoints.current_failed()).await;
    }
}

/// Returns the endpoint that reports itself as leader. The selected endpoint is tried first.
async fn find_leader(ctx: &Rc<WorkerContext>) -> Option<EndpointId> {
    let endpoints = ctx.pool.endpoints();
    // Endpoints in backoff are not dialed.
    let all = endpoints.endpoint_states();
    let usable = all
        .iter()
        .filter(|(_, standing)| *standing != EndpointState::Backoff);
    let mut candidates: Vec<EndpointId> = usable.map(|(target, _)| target.id).collect();
    let current = endpoints.current();
    candidates.sort_by_key(|id| Some(*id) != current);
    for endpoint in candidates {
        let result = timeout(limits::HEALTH_TIME, is_leader(ctx, endpoint)).await;
        if result.is_ok_and(|is_leader| is_leader) {
            return Some(endpoint);
        }
    }
    None
}

async fn is_leader(ctx: &Rc<WorkerContext>, endpoint: EndpointId) -> bool {
    let until = Instant::now() + limits::HEALTH_TIME;
    let Some(conn) = ctx.pool.connection_to(endpoint, until).await else {
        return false;
    };
    for credential in etcd_client::own_credentials(ctx) {
        let response = etcd_client::member_status(&conn, credential.as_ref()).await;
        if let Some(StatusResponse { header, leader, .. }) = response {
            let member_id = header.map_or(0, |header| header.member_id);
            return leader != 0 && leader == member_id;
        }
    }
    false
}
