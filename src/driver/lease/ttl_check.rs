//! Reads the remaining time to live of a lease. Unlike a heartbeat this read never blocks (L4).

use std::rc::Rc;

use tokio::time::{Instant, timeout};

use crate::driver::WorkerContext;
use crate::driver::etcd::client::OwnCall;
use crate::driver::lease::hub_driver::drive_hub;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::limits;
use crate::state_machine::lease::TtlCheckResult;
use crate::wire::frame;
use crate::wire::pb::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};

const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// Reads the TTL of a lease and passes the result to the hub.
pub(super) async fn check_ttl(ctx: Rc<WorkerContext>, link: Rc<UpstreamLink>, lease: i64) {
    let sent_at = Instant::now();
    let result = timeout(limits::LEASE_SILENT_TIME, query_ttl(&ctx, &link, lease)).await;
    let result = result.ok().flatten().unwrap_or(TtlCheckResult::Doubtful);
    drive_hub(&ctx, &link, |hub, now| {
        hub.ttl_checked(lease, result, sent_at.into_std(), now);
    });
}

/// Returns `None` if the read fails.
async fn query_ttl(
    ctx: &Rc<WorkerContext>,
    link: &UpstreamLink,
    lease: i64,
) -> Option<TtlCheckResult> {
    let credential = link.identity.credentials(1).into_iter().next();
    let request = LeaseTimeToLiveRequest {
        id: lease,
        keys: false,
    };
    let request = frame::encode_message(&request);
    let etcd_call = OwnCall::new(TIME_TO_LIVE, credential.as_ref(), request);
    let response: LeaseTimeToLiveResponse = etcd_call.message(ctx).await.ok()?;
    Some(match (response.granted_ttl, u64::try_from(response.ttl)) {
        // etcd grants every lease at least two seconds, so 0 means that there is no such lease.
        (0, _) => TtlCheckResult::NotFound,
        (_, Ok(seconds)) if seconds > 0 => {
            TtlCheckResult::Alive(std::time::Duration::from_secs(seconds))
        }
        _ => TtlCheckResult::Doubtful,
    })
}
