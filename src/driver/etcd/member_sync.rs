//! The list of endpoints as the cluster's member list has it, asked for every so often
//! (`--endpoints-auto-sync-interval`).
//!
//! Asked of etcd itself by one worker, over its own pool: nothing that is shown to clients in place of
//! etcd's list is taken for it. What cannot be learned changes nothing.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::driver::WorkerContext;
use crate::driver::call::MEMBER_LIST;
use crate::driver::etcd::client as etcd_client;
use crate::limits;
use crate::upstream::member_list::MemberList;
use crate::wire::frame;
use crate::wire::pb::etcdserverpb::{MemberListRequest, MemberListResponse};

/// Asks again and again.
pub(in crate::driver) async fn run(ctx: Rc<WorkerContext>, interval: Duration) {
    let mut failed = false;
    let mut unusable = Vec::new();
    loop {
        sleep(interval.max(limits::LEAST_SYNC)).await;
        let asked = timeout(limits::SYNC_TIME, roster(&ctx)).await;
        match asked.unwrap_or_else(|_| Err("timed out".to_owned())) {
            Ok(roster) => {
                if std::mem::take(&mut failed) {
                    info!("member list fetched again");
                }
                let left_out = ctx.pool.endpoints().replace(roster.endpoints);
                let mut not_used = roster.unusable;
                not_used.extend(left_out.iter().map(ToString::to_string));
                if not_used != unusable && !not_used.is_empty() {
                    let urls = not_used.join(",");
                    warn!(urls, "member client URLs cannot be used");
                }
                unusable = not_used;
            }
            Err(error) if !failed => {
                failed = true;
                warn!(error, "member list fetch failed: endpoints unchanged");
            }
            Err(_) => {}
        }
    }
}

/// The endpoints of the members, by the word of the cluster and not of one member that may be cut off.
/// Where auth is on, newer releases answer any user, but nobody without a token: then one of a client
/// that is here is used.
async fn roster(ctx: &Rc<WorkerContext>) -> Result<MemberList, String> {
    let request = MemberListRequest { linearizable: true };
    let request = [frame::encode_message(&request)];
    let mut refused = String::new();
    for credential in etcd_client::nobody_or_a_client(ctx) {
        let answer = etcd_client::unary(ctx, MEMBER_LIST, credential.as_ref(), &request).await;
        let members =
            match answer.and_then(|answer| etcd_client::message::<MemberListResponse>(&answer)) {
                Ok(list) => list.members,
                Err(status) => {
                    refused = format!("{}: {}", status.code.as_str(), status.message);
                    continue;
                }
            };
        let roster = MemberList::of(&members);
        if roster.endpoints.is_empty() {
            return Err("no member has a usable client URL".to_owned());
        }
        return Ok(roster);
    }
    Err(refused)
}
