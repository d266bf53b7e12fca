//! Reads of etcd for watches: whether a token may read a range (R4), the current header of the
//! store, and the first header of the process.

use std::future::poll_fn;
use std::rc::Rc;
use std::slice;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::driver::WorkerContext;
use crate::driver::call::WATCH;
use crate::driver::etcd::client::{TXN, noop_txn, request_head};
use crate::driver::state::identity::Credential;
use crate::driver::state::permission_cache::PermissionKey;
use crate::limits;
use crate::state_machine::watch::Unavailable;
use crate::state_machine::watch::hub::CheckResult;
use crate::upstream::attempt::{self, BufferedResponse};
use crate::wire::frame::Reader;
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::status::{Code, Status};
use crate::wire::watch;
use crate::wire::{method, response_header as wire_header};

/// Checks whether a token may read exactly this range.
pub(super) async fn check_permission(
    ctx: &Rc<WorkerContext>,
    (credential, range): &PermissionKey,
) -> CheckResult {
    let status = match noop_txn(ctx, credential.as_ref(), slice::from_ref(range), true).await {
        Ok(response) => {
            if let Some(header) = response_header(&response) {
                ctx.process.store_revision.observe(&header);
            }
            response.status()
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
                ctx.process.identities.forget_token(credential);
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

/// Returns the current header of the store from a linearizable read, or `None` if the read fails.
pub(super) async fn store_header(
    ctx: &Rc<WorkerContext>,
    credential: Option<&Credential>,
    range: &KeyRange,
) -> Option<Header> {
    let response = noop_txn(ctx, credential, slice::from_ref(range), false)
        .await
        .ok()?;
    response_header(&response)
}

fn response_header(response: &BufferedResponse) -> Option<Header> {
    wire_header::peek(method::lookup(TXN)?, response.chunks.front()?)
}

/// Fetches a header of the cluster when no response has contained one yet. etcd sends its header
/// in any response to a watch, even in a refusal. Returns `None` on failure; later responses
/// contain a header.
pub(super) async fn fetch_header(ctx: &Rc<WorkerContext>) -> Option<()> {
    let until = Instant::now() + limits::WAIT_FOR_ENDPOINT;
    let conn = ctx.pool.connection(until).await.ok()?;
    let head = attempt::head(conn.target(), &request_head(WATCH, None), None);
    let mut call = conn.open(head, false).ok()?;
    let range = KeyRange::of(Bytes::from_static(&[0]), Bytes::new());
    let create = watch::request::create(&range, -1, false, 1);
    call.body.send_data(create, false).ok()?;
    let read = async {
        let mut body = call.response.await.ok()?.into_body();
        let mut reader = Reader::new(limits::RESPONSE_BUFFER_BYTES as u64);
        loop {
            reader.push(poll_fn(|cx| body.poll_data(cx)).await?.ok()?);
            if let Some(message) = reader.next().ok()? {
                return watch::Response::parse(&message.payload).ok();
            }
        }
    };
    let response = timeout_at(until, read).await.ok()??;
    ctx.process.store_revision.observe(&response.header);
    Some(())
}
