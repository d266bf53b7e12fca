//! Calls that a namespace refuses, and calls that it admits only after inspection of the request
//! (N1).
//!
//! Two methods need inspection. `Alarm` may only read alarms. `LeaseRevoke` may only revoke a lease
//! without keys outside the namespace. Admitted calls go on to the `relay`, which translates keys.

use std::future::Future;
use std::pin::pin;

use crate::driver::call::request_body::{RequestBody, read_request_body};
use crate::driver::call::{Call, while_call_open};
use crate::driver::etcd::client::{OwnCall, decode_response};
use crate::driver::etcd::first_attempt::end_interrupted;
use crate::driver::relay;
use crate::driver::state::identity::Credential;
use crate::driver::state::reply;
use crate::limits;
use crate::wire::compression::Encoding;
use crate::wire::frame::{self, Reader};
use crate::wire::namespace::{NamespaceAccess, is_alarm_get};
use crate::wire::pb::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use crate::wire::proto;
use crate::wire::status::{Code, Status};

/// Method that either reads alarms or changes them, as its request demands.
const ALARM: &str = "Alarm";

const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// Returns the refusal of a call if the namespace refuses its method. Returns `None` if the call
/// may be served, possibly after inspection by [`serve`].
pub(super) fn refusal(call: &Call) -> Option<Status> {
    let policy = call.ctx.process.namespace_policy()?;
    let closed = policy.access(call.method) == NamespaceAccess::Denied;
    closed.then(|| policy.refusal_status(call.head.uri.path(), ""))
}

/// Returns whether [`serve`] must inspect the request of a call.
pub(super) fn needs_inspection(call: &Call) -> bool {
    let policy = call.ctx.process.namespace_policy();
    let access = policy.map(|policy| policy.access(call.method));
    matches!(
        access,
        Some(NamespaceAccess::ReadOnly | NamespaceAccess::LeaseChecked)
    )
}

/// Inspects the request of a call, then relays or refuses the call.
pub(super) async fn serve(call: &mut Call) -> Code {
    let request = match read_request_body(call).await {
        RequestBody::Complete(request) => request,
        // A valid request contains only a few numbers.
        RequestBody::Partial(_) => {
            return refuse(call, ": request too large");
        }
        RequestBody::Ended(code) => return code,
    };
    let mut reader = Reader::new(call.ctx.max.send);
    request.iter().for_each(|chunk| reader.push(chunk.clone()));
    // Bytes behind the message would be relayed without inspection.
    let message = match reader.next() {
        Ok(Some(message)) if reader.buffered() == 0 => message,
        _ => return refuse(call, ": malformed request"),
    };
    let encoding = Encoding::from_headers(&call.head.headers);
    let message = match encoding.and_then(|encoding| {
        let message = encoding.decode(message, limits::REQUEST_BUFFER_BYTES as u64);
        message.map_err(|error| error.status())
    }) {
        Ok(message) => message,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let detail = if call.method.is_some_and(|method| method.name == ALARM) {
        (!is_alarm_get(&message)).then_some(": only GET is allowed")
    } else {
        match lease_is_inside(call, &message).await {
            Ok(true) => None,
            Ok(false) => Some(": the lease has keys outside the namespace"),
            Err(code) => return code,
        }
    };
    match detail {
        // Exactly what has been inspected.
        None => relay::serve(call, vec![frame::encode(&message)]).await,
        Some(detail) => refuse(call, detail),
    }
}

fn refuse(call: &mut Call, detail: &str) -> Code {
    let path = call.head.uri.path();
    let status = call.ctx.process.namespace_policy().map_or_else(
        || Status::new(Code::Internal, "etcd-edge: no namespace"),
        |policy| policy.refusal_status(path, detail),
    );
    reply::trailers_only(&mut call.respond, &status)
}

/// Returns whether all keys of the lease in a LeaseRevokeRequest are in the namespace.
///
/// The proxy queries etcd with the client's own token. If etcd returns an error, the call ends with
/// that error. A key that is attached to the lease later is not seen. A client that may write a key
/// outside the namespace may also revoke its lease.
async fn lease_is_inside(call: &mut Call, request: &[u8]) -> Result<bool, Code> {
    let Some(lease_query) = lease_query(request) else {
        return Ok(false);
    };
    let ctx = call.ctx.clone();
    let credential = Credential::from_headers(&call.head.headers);
    let request = frame::encode_message(&lease_query);
    let etcd_call = OwnCall::new(TIME_TO_LIVE, credential.as_ref(), request)
        .with_deadline(call.deadline)
        .with_raw_keys();
    let mut fetch = pin!(etcd_call.send(&ctx));
    let response = match while_call_open(call, |cx| fetch.as_mut().poll(cx)).await {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => return Err(reply::trailers_only(&mut call.respond, &status)),
        Err(interrupted) => return Err(end_interrupted(call, interrupted)),
    };
    if let Some(status) = response.status().filter(|status| status.code != Code::Ok) {
        return Err(reply::trailers_only(&mut call.respond, &status));
    }
    let prefix = ctx
        .process
        .namespace_policy()
        .map(|policy| policy.namespace());
    // The keys of a malformed or too large response are unknown.
    let lease = decode_response::<LeaseTimeToLiveResponse>(&response);
    Ok(lease.is_ok_and(|lease| {
        let mut keys = lease.keys.iter();
        prefix.is_some_and(|prefix| keys.all(|key| prefix.strip(key).is_some()))
    }))
}

/// Converts LeaseRevokeRequest { ID = 1 } into a query for the lease's keys. Returns `None` if the
/// request is malformed or repeats the ID.
fn lease_query(request: &[u8]) -> Option<LeaseTimeToLiveRequest> {
    let mut id = None;
    for field in proto::fields(request) {
        let field = field.ok()?;
        if field.number == 1 && id.replace(field.varint()?).is_some() {
            return None;
        }
    }
    Some(LeaseTimeToLiveRequest {
        id: id.unwrap_or(0).cast_signed(),
        keys: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoke_request_becomes_a_query_for_its_lease() {
        let query = |id| Some(LeaseTimeToLiveRequest { id, keys: true });
        assert_eq!(lease_query(b"\x08\x07"), query(7));
        assert_eq!(lease_query(b""), query(0));
        assert_eq!(
            lease_query(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            query(-1)
        );
        for malformed in [&b"\x08\x07\x08\x08"[..], b"\x0a\x01\x07", b"\x08"] {
            assert_eq!(lease_query(malformed), None, "{malformed:?}");
        }
    }
}
