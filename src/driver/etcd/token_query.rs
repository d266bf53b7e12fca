//! Query of etcd whether it accepts a token.

use std::rc::Rc;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::identity::Credential;
use crate::wire::range::KeyRange;
use crate::wire::status::{Code, Status};

/// Result of a query.
pub(in crate::driver) enum TokenVerdict {
    /// etcd accepts the token.
    Accepted,
    /// etcd's own error.
    Rejected(Status),
    /// The query failed.
    Unknown(Status),
}

/// Returns whether etcd accepts a token. The permissions of its user do not matter. A rejected token
/// is removed from the known ones. `serializable`: without a round of the quorum.
pub(in crate::driver) async fn query_token(
    ctx: &Rc<WorkerContext>,
    credential: &Credential,
    serializable: bool,
) -> TokenVerdict {
    let range = KeyRange::of(Bytes::from_static(&[0]), Bytes::new());
    let status = match etcd_client::noop_txn(ctx, Some(credential), &[range], serializable).await {
        Ok(response) => response.status(),
        Err(status) => Some(status),
    };
    match status {
        Some(status) => match status.code {
            Code::Ok | Code::PermissionDenied => TokenVerdict::Accepted,
            Code::Unauthenticated | Code::InvalidArgument => {
                ctx.process.identities.forget_token(credential);
                TokenVerdict::Rejected(status)
            }
            _ => TokenVerdict::Unknown(status),
        },
        None => TokenVerdict::Unknown(Status::new(
            Code::Unavailable,
            "etcd-edge: etcd did not validate the token",
        )),
    }
}
