//! Refreshes popular cache entries before they expire. No client waits for the refresh, and one
//! read refreshes the entry instead of one read per client that finds it expired.

use std::rc::Rc;

use crate::driver::WorkerContext;
use crate::driver::call::RANGE;
use crate::driver::etcd::client::OwnCall;
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::store_response;
use crate::wire::frame;

/// Refreshes an entry with the token of a client that received it (P5).
pub(super) fn refresh(ctx: &Rc<WorkerContext>, read: ReadRequest) {
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        ctx.counters().reads.refreshes.inc();
        let request = frame::encode(read.request.message());
        let etcd_call = OwnCall::new(RANGE, read.caller.credential.as_ref(), request)
            .with_leader(read.requires_leader);
        // A failure is harmless: a client that finds the entry expired reads from etcd.
        if let Ok(answer) = etcd_call.send(&ctx).await {
            store_response(&ctx, &read, &answer);
        }
    });
}
