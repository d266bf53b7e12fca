//! `grpc.health.v1` Check and List, answered here: whether calls are served, for balancers and for probes of
//! Kubernetes. That etcd's members are well is for each of them to say, and no client of the proxy's asks it.

use std::pin::pin;

use bytes::Bytes;

use crate::driver::call::stream_requests::{MessageReader, malformed};
use crate::driver::call::{Call, while_call_open};
use crate::driver::etcd::first_attempt::end_interrupted;
use crate::driver::health::probes::read;
use crate::driver::state::reply;
use crate::limits;
use crate::wire::health::{self, Asked, Serving};
use crate::wire::status::{Code, Status};

/// What its requests are called in errors.
const WHAT: &str = "health request";

/// As Go's server says it.
const UNKNOWN: &str = "unknown service";

/// Serves Check or List, the request gathered.
pub(in crate::driver) async fn check(call: &mut Call, request: Vec<Bytes>) -> Code {
    let asked = match asked(call, request) {
        Ok(Asked::Unknown) => Err(Status::new(Code::NotFound, UNKNOWN)),
        asked => asked,
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(status) => return reply::trailers_only(&mut call.respond, &status),
    };
    let process = process(call);
    let is_list = call.method.is_some_and(|method| method.name == "List");
    let calls = match asked {
        Asked::Calls | Asked::Unknown => {
            let ctx = call.ctx.clone();
            let mut read = pin!(read(&ctx));
            match while_call_open(call, |cx| read.as_mut().poll(cx)).await {
                Ok(Ok(())) => process,
                Ok(Err(_)) => Serving::No,
                Err(cut) => return end_interrupted(call, cut),
            }
        }
        Asked::Process => process,
    };
    let answer = match is_list {
        true => health::list(calls, process),
        false => health::response(calls),
    };
    call.send_response(answer);
    Code::Ok
}

/// What a gathered request asks for. List asks for nothing, which is to ask for calls.
pub(super) fn asked(call: &Call, request: Vec<Bytes>) -> Result<Asked, Status> {
    let mut messages = MessageReader::new(limits::HEALTH_REQUEST_BYTES, WHAT);
    request.into_iter().for_each(|chunk| messages.push(chunk));
    let message = messages.next(&call.ctx)?;
    let message = message.ok_or_else(|| Status::new(Code::Internal, "unexpected EOF"))?;
    health::asked(&message).map_err(|error| malformed(WHAT, &error))
}

/// Whether the process takes calls: until it is to end (S2).
fn process(call: &Call) -> Serving {
    match call.ctx.drain.has_begun() {
        true => Serving::No,
        false => Serving::Yes,
    }
}
