//! Search for a token that works, after etcd has refused the token of an open upstream stream for a
//! new watch (W10).
//!
//! The stream and its live watches go on meanwhile. etcd checks a token only when a watch is
//! created.

use std::rc::Rc;

use tokio::time::timeout;

use crate::driver::WorkerContext;
use crate::driver::etcd::token_query::{TokenVerdict, query_token};
use crate::driver::watch::upstream_link::UpstreamLink;
use crate::limits;
use crate::state_machine::watch::trunk::Trunk;

/// Starts a search, or notifies the one that runs.
pub(super) fn start(ctx: &Rc<WorkerContext>, link: &Rc<UpstreamLink>) {
    if link.searches_token.replace(true) {
        link.token_refused_again.notify_one();
        return;
    }
    let (ctx, link) = (ctx.clone(), link.clone());
    tokio::task::spawn_local(async move {
        search(&ctx, &link).await;
        link.searches_token.set(false);
    });
}

/// Searches until a token works or no watch needs one.
async fn search(ctx: &Rc<WorkerContext>, link: &UpstreamLink) {
    let outbox = &ctx.watches.outbox;
    let mut pause = limits::BACKOFF_FIRST;
    while link.with_trunk(outbox, |trunk| trunk.needs_token()) {
        match find_token(ctx, link).await {
            Some(true) => {
                link.with_trunk(outbox, Trunk::token_found);
                return;
            }
            Some(false) => link.with_trunk(outbox, Trunk::no_token_found),
            // etcd did not decide.
            None => {}
        }
        // Without an error: a new watch needs a token, possibly of a new client.
        if timeout(pause, link.token_refused_again.notified())
            .await
            .is_err()
        {
            pause = (pause * 2).min(limits::WATCH_CHECK_INTERVAL);
        }
    }
}

/// Returns whether etcd accepts a token of the identity, or `None` if etcd did not decide.
async fn find_token(ctx: &Rc<WorkerContext>, link: &UpstreamLink) -> Option<bool> {
    let mut rejected = Vec::new();
    loop {
        // Read again for each query: clients come and go.
        let tokens = link.identity.credentials(rejected.len() + 1);
        let Some(token) = tokens.into_iter().find(|token| !rejected.contains(token)) else {
            return Some(false);
        };
        // Linearizable: a member that lags may accept a token that others refuse already.
        match query_token(ctx, &token, false).await {
            TokenVerdict::Accepted => return Some(true),
            TokenVerdict::Rejected(_) => rejected.push(token),
            TokenVerdict::Unknown(_) => return None,
        }
    }
}
