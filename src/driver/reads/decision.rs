//! Decides the next step of a read, from the cache and from the reads in flight.

use std::rc::Rc;

use bytes::Bytes;

use crate::driver::call::Call;
use crate::driver::fleet;
use crate::driver::reads::coalesce::{Admission, InFlight, Waiter, Wake, admit};
use crate::driver::reads::lookup::{LookupResult, lookup};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::is_permitted;
use crate::driver::state::interrupt::Interrupted;
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::reads::SharedResponse;
use crate::wire::status::Status;

/// Next step of a read.
pub(in crate::driver) enum ReadDecision {
    /// Send this cached response, which is complete and framed.
    Hit(Bytes),
    /// Send this response of the proxy itself, which is complete and framed.
    OwnResponse(Bytes),
    /// Check the proxy's own health.
    HealthCheck,
    /// Send the read to etcd. With [`InFlight`], identical reads wait until it returns. Without it,
    /// the read is not shared.
    Fetch(Option<InFlight>),
    /// Wait for the return of the identical read that is in flight.
    Join(Waiter),
    /// Query etcd for the permission to read the range, for a cache hit (R4).
    CheckPermission(PermissionKey),
    /// Send the response of a shared read.
    UseShared(Rc<Result<SharedResponse, Status>>),
    /// End the call, because it was interrupted while it waited.
    End(Interrupted),
}

/// Decides the first step of a call. `read` is `None` if the request is not a read of keys that the
/// proxy understands.
pub(in crate::driver) fn decide(call: &Call, read: Option<&ReadRequest>) -> ReadDecision {
    let Some(read) = read else {
        if call.is_health() {
            return ReadDecision::HealthCheck;
        }
        return fleet::member_list_response(call)
            .map_or(ReadDecision::Fetch(None), ReadDecision::OwnResponse);
    };
    if read.request.is_serializable() {
        if !call.ctx.process.read_cache.is_on() {
            return ReadDecision::Fetch(None);
        }
        match lookup(call, read) {
            LookupResult::Hit(response) => return ReadDecision::Hit(response),
            LookupResult::NeedsPermission(permission) => {
                return ReadDecision::CheckPermission(permission);
            }
            LookupResult::Miss => {}
        }
    }
    fetch_or_join(call, read, false)
}

/// Decides between a read of the client's own and a shared one. `has_waited` means that the cache
/// had no usable response after the read had waited for one.
fn fetch_or_join(call: &Call, read: &ReadRequest, has_waited: bool) -> ReadDecision {
    if !may_join(call, read) {
        return ReadDecision::Fetch(None);
    }
    match admit(&call.ctx, read, call.connection.number, has_waited) {
        Admission::Send(in_flight) => ReadDecision::Fetch(Some(in_flight)),
        Admission::Wait(waiter) => ReadDecision::Join(waiter),
    }
}

/// Decides the next step of a read that has waited; `woken` is the result. A read that waited for a
/// cached response and finds it unusable is shared like a new one: if etcd or the worker is slower
/// than the maximum age, all that wait find the response expired at once. It waits at most once
/// more, because the next result is not looked up in the cache.
pub(in crate::driver) fn decide_after_wait(
    call: &Call,
    read: Option<&mut ReadRequest>,
    woken: Result<Wake, Interrupted>,
) -> ReadDecision {
    let wake = match woken {
        Ok(wake) => wake,
        Err(interrupted) => return ReadDecision::End(interrupted),
    };
    let Some(read) = read else {
        return ReadDecision::Fetch(None);
    };
    read.restart(&call.ctx);
    match wake {
        Wake::Send(in_flight) => ReadDecision::Fetch(Some(in_flight)),
        Wake::SendAlone => ReadDecision::Fetch(None),
        Wake::Lookup => match lookup(call, read) {
            LookupResult::Hit(response) => ReadDecision::Hit(response),
            LookupResult::NeedsPermission(_) => ReadDecision::Fetch(None),
            LookupResult::Miss => fetch_or_join(call, read, true),
        },
        Wake::Response(result) => ReadDecision::UseShared(result),
    }
}

/// Returns whether the client may receive responses to reads of other clients. etcd must have
/// accepted its token for exactly this range lately (R4).
fn may_join(call: &Call, read: &ReadRequest) -> bool {
    read.caller.credential.is_none() || is_permitted(&call.ctx, &read.permission_key())
}
