//! Validates the tokens of clients (R4).
//!
//! Clients of one user share an upstream stream, which carries the token of one of them. So the
//! proxy checks the token of each client when its stream starts, and periodically while the client
//! sends heartbeats, like etcd on a stream of one client. The check also extends the lifetime of a
//! token where etcd expires unused tokens.
//!
//! A token that etcd rejects becomes an identity of its own, so its client receives etcd's own
//! error.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::etcd::token_query::{TokenVerdict, query_token};
use crate::driver::lease::hub_driver::end_stream;
use crate::driver::state::identity::{Credential, Session};
use crate::wire::status::Status;

/// Checks the token of a session. Returns the session of its user, or one of its own if etcd
/// rejects the token.
///
/// # Errors
///
/// etcd did not decide.
pub(super) async fn check_token(
    ctx: &Rc<WorkerContext>,
    session: Session,
) -> Result<Session, Status> {
    let Some(credential) = session.credential().cloned() else {
        return Ok(session);
    };
    let sent_at = Instant::now();
    match query_token(ctx, &credential, true).await {
        TokenVerdict::Accepted => {
            ctx.leases.tokens.insert(credential, sent_at);
            Ok(session)
        }
        TokenVerdict::Rejected(_) => Ok(ctx.process.identities.session(Some(credential))),
        TokenVerdict::Unknown(status) => Err(status),
    }
}

/// Checks again the tokens of clients that have sent heartbeats since the last check.
pub(super) fn recheck_tokens(ctx: &Rc<WorkerContext>) {
    let shares_stream = |session: &Session| session.identity().is_user();
    let active = ctx
        .leases
        .matching_clients(|client| shares_stream(client.stream.session()) && client.active.take());
    let mut by_token: HashMap<Credential, Vec<_>> = HashMap::new();
    for client in active {
        if let Some(credential) = client.stream.session().credential().cloned() {
            by_token.entry(credential).or_default().push(client);
        }
    }
    for (credential, clients) in by_token {
        let ctx = ctx.clone();
        // Concurrent, so that one silent endpoint does not delay the other checks.
        tokio::task::spawn_local(async move {
            if let TokenVerdict::Rejected(status) = query_token(&ctx, &credential, true).await {
                clients
                    .iter()
                    .for_each(|client| end_stream(&ctx, client, &status));
            }
        });
    }
}
