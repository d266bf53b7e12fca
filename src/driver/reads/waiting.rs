//! Steps of a read that wait: for a shared read, for a permission check, or for etcd after an
//! insufficient first attempt.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::slice;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::call::{Call, while_call_open};
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::first_attempt::fetch_with_retries;
use crate::driver::etcd::hedged_read::PriorAttempt;
use crate::driver::reads::coalesce::{InFlight, Waiter, Wake, release_when_silent};
use crate::driver::reads::store::record_permission;
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::permission_cache::PermissionKey;
use crate::upstream::attempt::BufferedResponse;
use crate::wire::status::{Code, Status};

/// Waits for the shared read.
///
/// # Errors
///
/// The call was interrupted.
pub(in crate::driver) async fn join(
    call: &mut Call,
    mut waiter: Waiter,
) -> Result<Wake, Interrupted> {
    while_call_open(call, |cx| waiter.poll(cx)).await
}

/// Checks with etcd, with the client's own token, whether the client may read the range (R4). Then
/// it may receive the cached response. Otherwise it receives etcd's response to the read itself,
/// usually PERMISSION_DENIED.
///
/// # Errors
///
/// The call was interrupted.
pub(in crate::driver) async fn check_permission(
    call: &mut Call,
    permission: PermissionKey,
) -> Result<Wake, Interrupted> {
    let ctx = call.ctx.clone();
    let mut query = pin!(query_permission(&ctx, permission));
    match while_call_open(call, |cx| query.as_mut().poll(cx)).await? {
        true => Ok(Wake::Lookup),
        false => Ok(Wake::SendAlone),
    }
}

async fn query_permission(ctx: &Rc<WorkerContext>, permission: PermissionKey) -> bool {
    let (started, flush_count) = (
        std::time::Instant::now(),
        ctx.process.read_cache.flush_count(),
    );
    let (credential, range) = &permission;
    let response =
        etcd_client::noop_txn(ctx, credential.as_ref(), slice::from_ref(range), true).await;
    let permitted = response.is_ok_and(|response| response.code() == Code::Ok);
    if permitted {
        record_permission(ctx, permission, started, flush_count);
    }
    permitted
}

/// Continues a read after an insufficient first attempt: it was silent, failed or was not sent.
/// Identical reads do not wait for a silent read (E4): `in_flight` becomes `None`.
///
/// # Errors
///
/// The call was interrupted.
pub(in crate::driver) async fn finish_fetch(
    call: &mut Call,
    request: &[Bytes],
    prior: PriorAttempt,
    in_flight: &mut Option<InFlight>,
) -> Result<Result<BufferedResponse, Status>, Interrupted> {
    let ctx = call.ctx.clone();
    if let PriorAttempt::Silent(_) = prior {
        *in_flight = None;
    }
    let attempts = pin!(fetch_with_retries(call, request, prior));
    release_when_silent(&ctx, in_flight, attempts).await
}
