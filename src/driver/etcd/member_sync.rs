//! Synchronises the endpoint list with the member list of the cluster
//! (`--endpoints-auto-sync-interval`).
//!
//! One worker reads the list from etcd over its own pool, so the list that clients see in place of
//! etcd's is never used. A failed read changes nothing.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::driver::WorkerContext;
use crate::driver::call::MEMBER_LIST;
use crate::driver::etcd::client::{OwnCall, own_credentials};
use crate::limits;
use crate::upstream::member_list::MemberList;
use crate::wire::frame;
use crate::wire::pb::etcdserverpb::{MemberListRequest, MemberListResponse};

/// Repeats the synchronisation forever, at most every [`limits::MIN_SYNC_INTERVAL`].
pub(in crate::driver) async fn run(ctx: Rc<WorkerContext>, interval: Duration) {
    let mut failed = false;
    let mut unusable = Vec::new();
    loop {
        sleep(interval.max(limits::MIN_SYNC_INTERVAL)).await;
        let fetched = timeout(limits::SYNC_TIME, fetch_member_list(&ctx)).await;
        match fetched.unwrap_or_else(|_| Err("timed out".to_owned())) {
            Ok(list) => {
                if std::mem::take(&mut failed) {
                    info!("member list fetched again");
                }
                let ignored = ctx.pool.endpoints().replace(list.endpoints);
                let mut now_unusable = list.unusable;
                now_unusable.extend(ignored.iter().map(ToString::to_string));
                if now_unusable != unusable && !now_unusable.is_empty() {
                    let urls = now_unusable.join(",");
                    warn!(urls, "member client URLs cannot be used");
                }
                unusable = now_unusable;
            }
            Err(error) if !failed => {
                failed = true;
                warn!(error, "member list fetch failed: endpoints unchanged");
            }
            Err(_) => {}
        }
    }
}

/// Reads the endpoints of the members with a linearizable call, so that a partitioned member cannot
/// respond. With auth on, newer etcd versions accept any user but no call without a token. Then the
/// token of a connected client is used.
///
/// # Errors
///
/// The last error of etcd, or that no member has a usable client URL.
async fn fetch_member_list(ctx: &Rc<WorkerContext>) -> Result<MemberList, String> {
    let request = MemberListRequest { linearizable: true };
    let request = frame::encode_message(&request);
    let mut last_error = String::new();
    for credential in own_credentials(ctx) {
        let call = OwnCall::new(MEMBER_LIST, credential.as_ref(), request.clone());
        let members = match call.message::<MemberListResponse>(ctx).await {
            Ok(list) => list.members,
            Err(status) => {
                last_error = format!("{}: {}", status.code.as_str(), status.message);
                continue;
            }
        };
        let list = MemberList::from_members(&members);
        if list.endpoints.is_empty() {
            return Err("no member has a usable client URL".to_owned());
        }
        return Ok(list);
    }
    Err(last_error)
}
