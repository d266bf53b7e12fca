//! `grpc.health.v1` Check and List, served by the proxy: whether it serves calls, for load
//! balancers and Kubernetes probes. The health of single etcd members is not included: each member
//! reports its own, and clients of the proxy do not need it.

use std::pin::pin;

use bytes::Bytes;

use crate::driver::call::stream_requests::{MessageReader, malformed};
use crate::driver::call::{Call, while_call_open};
use crate::driver::etcd::first_attempt::end_interrupted;
use crate::driver::health::probes::check_etcd;
use crate::driver::state::reply;
use crate::limits;
use crate::wire::health::{self, HealthTarget, Serving};
use crate::wire::status::{Code, Status};

/// Name of the request in errors.
const REQUEST_NAME: &str = "health request";

/// Error text of Go's health server.
const UNKNOWN_SERVICE: &str = "unknown service";

/// Serves Check or List. `request` is the complete request.
pub(in crate::driver) async fn serve_check(call: &mut Call, request: Vec<Bytes>) -> Code {
    let service = match parse_request(call, request) {
        Ok(HealthTarget::Unknown) => Err(Status::new(Code::NotFound, UNKNOWN_SERVICE)),
        service => service,
    };
    let service = match service {
        Ok(service) => service,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let process = process_status(call);
    let is_list = call.method.is_some_and(|method| method.name == "List");
    let calls = match service {
        HealthTarget::Calls | HealthTarget::Unknown => {
            let ctx = call.ctx.clone();
            let mut check = pin!(check_etcd(&ctx));
            match while_call_open(call, |cx| check.as_mut().poll(cx)).await {
                Ok(Ok(())) => process,
                Ok(Err(_)) => Serving::No,
                Err(interrupted) => return end_interrupted(call, interrupted),
            }
        }
        HealthTarget::Process => process,
    };
    let response = match is_list {
        true => health::list(calls, process),
        false => health::response(calls),
    };
    call.send_response(response);
    Code::Ok
}

/// Parses a complete request. List requests are empty, which selects the service of calls.
pub(super) fn parse_request(call: &Call, request: Vec<Bytes>) -> Result<HealthTarget, Status> {
    let mut messages = MessageReader::new(limits::HEALTH_REQUEST_BYTES, REQUEST_NAME);
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
