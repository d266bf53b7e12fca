//! Refreshes popular cache entries before they expire. No client waits for the refresh, and one
//! read refreshes the entry instead of one read per client that finds it expired.

use std::rc::Rc;

use http::HeaderValue;

use crate::driver::WorkerContext;
use crate::driver::call::RANGE;
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::hedged_read::{HedgedRead, PriorAttempt};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::store_response;
use crate::wire::{frame, metadata};

/// Refreshes an entry with the token of a client that received it (P5).
pub(super) fn refresh(ctx: &Rc<WorkerContext>, read: ReadRequest) {
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        ctx.counters().reads.refreshes.inc();
        let mut head = etcd_client::request_head(RANGE, read.caller.credential.as_ref());
        if read.requires_leader {
            head.headers
                .insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
        }
        let request = [frame::encode(read.request.message())];
        let etcd_call = HedgedRead {
            ctx: &ctx,
            head: &head,
            deadline: None,
            request: &request,
            raw_keys: false,
        };
        // A failure is harmless: a client that finds the entry expired reads from etcd.
        if let Ok(answer) = etcd_call.fetch(PriorAttempt::NotSent).await {
            store_response(&ctx, &read, &answer);
        }
    });
}
