//! End of a relayed stream towards the client: with the trailers of etcd, or with an error of the
//! relay.

use h2::SendStream;

use crate::driver::call::Call;
use crate::driver::relay::response_stream::ResponseStreamError;
use crate::driver::state::reply;
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::net::pump::{PumpEnd, PumpError};
use crate::upstream::failure;
use crate::wire::status::{Code, Status};

/// Returns the status code with which etcd ended its stream.
pub(in crate::driver) fn end_code(end: &PumpEnd) -> Code {
    match end {
        PumpEnd::Trailers(trailers) => {
            Status::from_headers(trailers).map_or(Code::Unknown, |s| s.code)
        }
        PumpEnd::EndStreamSent | PumpEnd::NoTrailers => Code::Unknown,
    }
}

/// Ends the client stream in the same way as etcd ended its stream.
pub(in crate::driver) fn finish_stream(to: &mut SendStream<Payload>, end: PumpEnd) -> Code {
    let code = end_code(&end);
    // Errors mean that the client has left.
    match end {
        PumpEnd::EndStreamSent => {}
        PumpEnd::NoTrailers => drop(to.send_data(Payload::default(), true)),
        PumpEnd::Trailers(trailers) => drop(to.send_trailers(trailers)),
    }
    code
}

/// Ends the client stream with the error that stopped the relay.
pub(in crate::driver) fn abort_stream(
    call: &Call,
    to: &mut SendStream<Payload>,
    error: ResponseStreamError,
) -> Code {
    match error {
        ResponseStreamError::Pump(PumpError::Receive(h2_error)) => reply::trailers(
            to,
            &reply::failure_status(&failure::from_h2(&h2_error), call.deadline),
        ),
        ResponseStreamError::Pump(PumpError::TooLarge { len, max }) => {
            call.ctx.counters().limit_hit(Limit::RecvBytes);
            reply::trailers(to, &reply::recv_too_large(len, max))
        }
        ResponseStreamError::Pump(PumpError::SendClosed) => Code::Cancelled,
        ResponseStreamError::Refused(status) => reply::trailers(to, &status),
        ResponseStreamError::Limit => {
            to.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
            Code::ResourceExhausted
        }
    }
}
