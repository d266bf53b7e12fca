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

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::lease::hub_driver::end_stream;
use crate::driver::state::identity::{Credential, Session};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

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
    match query_token(ctx, &credential).await {
        TokenVerdict::Accepted => {
            ctx.leases.tokens.insert(credential, sent_at);
            Ok(session)
        }
        TokenVerdict::Rejected(_) => {
            ctx.process.identities.forget_token(&credential);
            Ok(ctx.process.identities.session(Some(credential)))
        }
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
            if let TokenVerdict::Rejected(status) = query_token(&ctx, &credential).await {
                ctx.process.identities.forget_token(&credential);
                clients
                    .iter()
                    .for_each(|client| end_stream(&ctx, client, &status));
            }
        });
    }
}

/// Result of a token check.
enum TokenVerdict {
    Accepted,
    /// etcd's own error.
    Rejected(Status),
    /// The check failed.
    Unknown(Status),
}

/// Returns whether etcd accepts a token. The permissions of its user do not matter.
async fn query_token(ctx: &Rc<WorkerContext>, credential: &Credential) -> TokenVerdict {
    let range = KeyRange::of(Bytes::from_static(&[0]), Bytes::new());
    let status = match etcd_client::noop_txn(ctx, Some(credential), &[range], true).await {
        Ok(response) => response.status(),
        Err(status) => Some(status),
    };
    match status {
        Some(status) => match status.code {
            Code::Ok | Code::PermissionDenied => TokenVerdict::Accepted,
            Code::Unauthenticated | Code::InvalidArgument => TokenVerdict::Rejected(status),
            _ => TokenVerdict::Unknown(status),
        },
        None => TokenVerdict::Unknown(Status::new(
            Code::Unavailable,
            "etcd-edge: etcd did not validate the token",
        )),
    }
}
