//! Decides how a read is served.

use bytes::Bytes;

use crate::driver::call::Call;
use crate::driver::fleet;
use crate::driver::reads::coalesce::{Admission, InFlight, Waiter, admit};
use crate::driver::reads::lookup::{LookupResult, serve_cached};
use crate::driver::reads::request::ReadRequest;
use crate::driver::reads::store::is_permitted;
use crate::driver::state::permission_cache::PermissionKey;
use crate::wire::status::Code;

/// Way in which a read is served.
pub(in crate::driver) enum Plan {
    /// The response has been sent, with this code.
    Sent(Code),
    /// The proxy itself has the response: complete and framed.
    Respond(Bytes),
    /// The call checks the proxy's own health.
    HealthCheck,
    /// The read goes to etcd and is not shared. `None` if the request is not a read of keys that
    /// the proxy understands.
    Fetch(Option<ReadRequest>),
    /// The read goes to etcd, and identical reads wait until it returns.
    FetchInFlight(ReadRequest, InFlight),
    /// The read waits first: see [`waiting`](super::waiting).
    Wait(Box<(ReadRequest, WaitFor)>),
}

/// Event that a read waits for.
pub(in crate::driver) enum WaitFor {
    /// The return of the identical read that is in flight.
    SharedRead(Waiter),
    /// The permission of etcd to read the range, for a cache hit (R4).
    Permission(PermissionKey),
    /// Send capacity of the client, for this large cache hit.
    Client(Bytes),
}

/// Decides how to serve a call's read; `request` is its complete body. Sends small cache hits
/// itself.
pub(in crate::driver) fn plan(call: &mut Call, request: &[Bytes]) -> Plan {
    let Some(read) = ReadRequest::parse(call, request) else {
        if call.is_health() {
            return Plan::HealthCheck;
        }
        return fleet::member_list_response(call).map_or(Plan::Fetch(None), Plan::Respond);
    };
    let serializable = read.request.is_serializable();
    if serializable {
        if !call.ctx.process.read_cache.is_on() {
            return Plan::Fetch(Some(read));
        }
        match serve_cached(call, &read) {
            LookupResult::Sent => return Plan::Sent(Code::Ok),
            LookupResult::Large(answer) => return wait(read, WaitFor::Client(answer)),
            LookupResult::NeedsPermission(permission) => {
                return wait(read, WaitFor::Permission(permission));
            }
            LookupResult::Miss => {}
        }
    }
    if !may_join(call, &read) {
        return Plan::Fetch(Some(read));
    }
    match admit(&call.ctx, &read, call.connection.number) {
        Admission::Send(in_flight) => Plan::FetchInFlight(read, in_flight),
        Admission::Wait(waiter) => wait(read, WaitFor::SharedRead(waiter)),
    }
}

fn wait(read: ReadRequest, wait: WaitFor) -> Plan {
    Plan::Wait(Box::new((read, wait)))
}

/// Returns whether the client may receive responses to reads of other clients. etcd must have
/// accepted its token for exactly this range lately (R4).
fn may_join(call: &Call, read: &ReadRequest) -> bool {
    read.caller.credential.is_none() || is_permitted(&call.ctx, &read.permission_key())
}
