//! Asks anew for a kept answer that is given often, before it is too old: nobody waits for it, and it is
//! asked for once, not by all who find it too old at the same time.

use std::rc::Rc;

use http::HeaderValue;

use crate::driver::WorkerContext;
use crate::driver::call::RANGE;
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::hedged_read::{Begun, Read};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::keep;
use crate::wire::{frame, metadata};

/// With the token of the client that was given it (P5).
pub(super) fn renew(ctx: &Rc<WorkerContext>, asking: ReadRequest) {
    let ctx = ctx.clone();
    tokio::task::spawn_local(async move {
        ctx.count().reads.refreshes.inc();
        let mut head = etcd_client::head(RANGE, asking.asker.credential.as_ref());
        if asking.leader {
            head.headers
                .insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
        }
        let request = [frame::encode(asking.asked.message())];
        let read = Read {
            ctx: &ctx,
            head: &head,
            deadline: None,
            request: &request,
            untranslated: false,
        };
        // One that fails is no loss: whoever finds the answer too old asks for himself.
        if let Ok(answer) = read.fetch(Begun::Nothing).await {
            keep(&ctx, &asking, &answer);
        }
    });
}
