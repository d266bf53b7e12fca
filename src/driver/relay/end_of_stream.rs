//! How a relayed stream ends towards the client: as etcd ended it, or as far as it came.

use h2::SendStream;

use crate::driver::call::Call;
use crate::driver::relay::response_stream::Stopped;
use crate::driver::state::reply;
use crate::metrics::Limit;
use crate::net::payload::Payload;
use crate::net::pump::{End, PumpError};
use crate::upstream::failure;
use crate::wire::status::{Code, Status};

/// The code that etcd ended its stream with.
pub(in crate::driver) fn code(end: &End) -> Code {
    match end {
        End::Trailers(trailers) => Status::from_headers(trailers).map_or(Code::Unknown, |s| s.code),
        End::Passed | End::Bare => Code::Unknown,
    }
}

/// Ends the client's stream as etcd ended its own.
pub(in crate::driver) fn finish(to: &mut SendStream<Payload>, end: End) -> Code {
    let code = code(&end);
    // Errors mean that the client is gone.
    match end {
        End::Passed => {}
        End::Bare => drop(to.send_data(Payload::default(), true)),
        End::Trailers(trailers) => drop(to.send_trailers(trailers)),
    }
    code
}

/// Ends the client's stream when the relay could not go on.
pub(in crate::driver) fn stopped(call: &Call, to: &mut SendStream<Payload>, why: Stopped) -> Code {
    match why {
        Stopped::Pump(PumpError::From(error)) => {
            reply::trailers(to, &reply::lost(&failure::from_h2(&error), call.deadline))
        }
        Stopped::Pump(PumpError::TooLarge { len, max }) => {
            call.ctx.count().hit(Limit::RecvBytes);
            reply::trailers(to, &reply::recv_too_large(len, max))
        }
        Stopped::Pump(PumpError::To) => Code::Cancelled,
        Stopped::Refused(status) => reply::trailers(to, &status),
        Stopped::Limit => {
            to.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
            Code::ResourceExhausted
        }
    }
}
