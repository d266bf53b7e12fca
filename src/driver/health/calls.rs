//! `grpc.health.v1` Check and List, served by the proxy: whether it serves calls, for load
//! balancers and Kubernetes probes. The health of single etcd members is not included: each member
//! reports its own, and clients of the proxy do not need it.

use std::pin::pin;

use bytes::Bytes;

use crate::driver::call::stream_requests::{MessageReader, malformed};
use crate::driver::call::{Call, while_call_open};
use crate::driver::health::probes::check_etcd;
use crate::driver::state::interrupt::Interrupted;
use crate::limits;
use crate::wire::compression::Encoding;
use crate::wire::health::{self, HealthTarget, Serving};
use crate::wire::status::{Code, Status};

/// Name of the request in errors.
const REQUEST_NAME: &str = "health request";

/// Error text of Go's health server.
const UNKNOWN_SERVICE: &str = "unknown service";

/// Checks the health for Check or List. `request` is the complete request, not compressed. Returns the framed
/// response, or the status of the error.
///
/// # Errors
///
/// The call was interrupted.
pub(in crate::driver) async fn check(
    call: &mut Call,
    request: Vec<Bytes>,
) -> Result<Result<Bytes, Status>, Interrupted> {
    let service = match parse_request(call, Encoding::Identity, request) {
        Ok(HealthTarget::Unknown) => return Ok(Err(Status::new(Code::NotFound, UNKNOWN_SERVICE))),
        Ok(service) => service,
        Err(status) => return Ok(Err(status)),
    };
    let process = process_status(call);
    let is_list = call.method.is_some_and(|method| method.name == "List");
    let calls = match service {
        HealthTarget::Calls | HealthTarget::Unknown => {
            let ctx = call.ctx.clone();
            let mut check = pin!(check_etcd(&ctx));
            match while_call_open(call, |cx| check.as_mut().poll(cx)).await? {
                Ok(()) => process,
                Err(_) => Serving::No,
            }
        }
        HealthTarget::Process => process,
    };
    Ok(Ok(match is_list {
        true => health::list(calls, process),
        false => health::response(calls),
    }))
}

/// Parses a complete request, which may be compressed with `encoding`. List requests are empty, which selects the service of calls.
pub(super) fn parse_request(
    call: &Call,
    encoding: Encoding,
    request: Vec<Bytes>,
) -> Result<HealthTarget, Status> {
    let mut messages = MessageReader::new(limits::HEALTH_REQUEST_BYTES, encoding);
    request.into_iter().for_each(|chunk| messages.push(chunk));
    let message = messages.next(&call.ctx)?;
    let message = message.ok_or_else(|| Status::new(Code::Internal, "unexpected EOF"))?;
    health::parse_request(&message).map_err(|error| malformed(REQUEST_NAME, &error))
}

/// Returns whether the process accepts calls: until the drain begins (S2).
fn process_status(call: &Call) -> Serving {
    match call.ctx.drain.has_begun() {
        true => Serving::No,
        false => Serving::Yes,
    }
}
