//! Whose tokens count (R4). Clients of one user share a stream to etcd, which has one client's token:
//! so each client's own is looked at when its stream begins, and again from time to time while it
//! sends heartbeats, as etcd does with each. That also keeps the token alive where etcd lets those go
//! that are not used.
//!
//! A token that etcd does not take is an identity of its own: what etcd says to it is what its client
//! hears.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::lease::hub_driver::end;
use crate::driver::state::identity::{Credential, Session};
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

/// The session as it is after etcd was asked about its token: among those of its user, or alone.
pub(super) async fn judge(ctx: &Rc<WorkerContext>, session: Session) -> Result<Session, Status> {
    let Some(credential) = session.credential().cloned() else {
        return Ok(session);
    };
    let asked = Instant::now();
    match look(ctx, &credential).await {
        TokenVerdict::Good => {
            ctx.leases.tokens.remember(credential, asked);
            Ok(session)
        }
        TokenVerdict::Bad(_) => {
            ctx.shared.identities.forget(&credential);
            Ok(ctx.shared.identities.session(Some(credential)))
        }
        TokenVerdict::Unknown(status) => Err(status),
    }
}

/// Looks again at the tokens of clients that have sent heartbeats since the last time.
pub(super) fn look_again(ctx: &Rc<WorkerContext>) {
    let shares = |session: &Session| session.login().is_user();
    let beating = ctx
        .leases
        .select(|client| shares(client.stream.session()) && client.beats.take());
    let mut by_token: HashMap<Credential, Vec<_>> = HashMap::new();
    for client in beating {
        if let Some(credential) = client.stream.session().credential().cloned() {
            by_token.entry(credential).or_default().push(client);
        }
    }
    for (credential, clients) in by_token {
        let ctx = ctx.clone();
        // Side by side, so that a silent endpoint keeps none of them waiting for the others.
        tokio::task::spawn_local(async move {
            if let TokenVerdict::Bad(status) = look(&ctx, &credential).await {
                ctx.shared.identities.forget(&credential);
                clients.iter().for_each(|client| end(&ctx, client, &status));
            }
        });
    }
}

/// What etcd says of a token.
enum TokenVerdict {
    Good,
    /// It is not taken, in etcd's words.
    Bad(Status),
    /// Nobody could say.
    Unknown(Status),
}

/// Whether etcd takes a token: what it may read does not matter.
async fn look(ctx: &Rc<WorkerContext>, credential: &Credential) -> TokenVerdict {
    let any = KeyRange::of(Bytes::from_static(&[0]), Bytes::new());
    let status = match etcd_client::txn(ctx, Some(credential), &[any], true).await {
        Ok(answer) => answer.status(),
        Err(status) => Some(status),
    };
    match status {
        Some(status) => match status.code {
            Code::Ok | Code::PermissionDenied => TokenVerdict::Good,
            Code::Unauthenticated | Code::InvalidArgument => TokenVerdict::Bad(status),
            _ => TokenVerdict::Unknown(status),
        },
        None => TokenVerdict::Unknown(Status::new(
            Code::Unavailable,
            "etcd-edge: etcd did not validate the token",
        )),
    }
}
