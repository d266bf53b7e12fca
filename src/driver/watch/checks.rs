//! What is asked of etcd beside the watches: whether a token may read a range (R4), how far the
//! store is, and which release an endpoint runs.

use std::future::poll_fn;
use std::rc::Rc;
use std::slice;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::driver::WorkerContext;
use crate::driver::call::WATCH;
use crate::driver::etcd::client::{TXN, head, txn};
use crate::driver::state::identity::Credential;
use crate::driver::state::permission_cache::PermissionKey;
use crate::limits;
use crate::state_machine::watch::Unavailable;
use crate::state_machine::watch::hub::CheckResult;
use crate::upstream::attempt::{self, Answer};
use crate::wire::frame::Reader;
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::status::{Code, Status};
use crate::wire::watch;
use crate::wire::{method, response_header as wire_header};

/// Whether a token may read exactly a range.
pub(super) async fn may_read(
    ctx: &Rc<WorkerContext>,
    (credential, range): &PermissionKey,
) -> CheckResult {
    let status = match txn(ctx, credential.as_ref(), slice::from_ref(range), true).await {
        Ok(answer) => {
            if let Some(header) = header_of(&answer) {
                ctx.shared.known.see(&header);
            }
            answer.status()
        }
        Err(status) => Some(status),
    };
    let Some(status) = status else {
        return CheckResult::Lost(Unavailable::Unavailable);
    };
    match status.code {
        Code::Ok => CheckResult::Granted,
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
            if let (Code::Unauthenticated, Some(credential)) = (status.code, credential) {
                ctx.shared.identities.forget(credential);
            }
            let Status { code, message } = status;
            let code = code.as_str();
            CheckResult::Refused(format!("rpc error: code = {code} desc = {message}"))
        }
        _ => {
            tracing::warn!(error = %status, "watch permission check failed");
            CheckResult::Lost(Unavailable::Unavailable)
        }
    }
}

/// Where the store is, as of now: an answer that a quorum stands behind. `None` when none can be
/// had.
pub(super) async fn history(
    ctx: &Rc<WorkerContext>,
    credential: Option<&Credential>,
    range: &KeyRange,
) -> Option<Header> {
    let answer = txn(ctx, credential, slice::from_ref(range), false)
        .await
        .ok()?;
    header_of(&answer)
}

fn header_of(answer: &Answer) -> Option<Header> {
    wire_header::peek(method::lookup(TXN)?, answer.chunks.front()?)
}

/// Learns of the cluster, when nothing of it has passed through yet: whatever etcd says to a watch,
/// though it refuses it, carries its header. Without an answer, others will bring it.
pub(super) async fn hello(ctx: &Rc<WorkerContext>) -> Option<()> {
    let until = Instant::now() + limits::WAIT_FOR_ENDPOINT;
    let conn = ctx.pool.connection(until).await.ok()?;
    let head = attempt::head(conn.target(), &head(WATCH, None), None);
    let mut taken = conn.open(head, false).ok()?;
    let nothing = KeyRange::of(Bytes::from_static(&[0]), Bytes::new());
    let create = watch::request::create(&nothing, -1, false, 1);
    taken.body.send_data(create, false).ok()?;
    let answered = async {
        let mut body = taken.response.await.ok()?.into_body();
        let mut reader = Reader::new(limits::HOLD_BYTES as u64);
        loop {
            reader.push(poll_fn(|cx| body.poll_data(cx)).await?.ok()?);
            if let Some(message) = reader.next().ok()? {
                return watch::Response::parse(&message.payload).ok();
            }
        }
    };
    let answer = timeout_at(until, answered).await.ok()??;
    ctx.shared.known.see(&answer.header);
    Some(())
}
