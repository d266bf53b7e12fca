//! From what the HTTP/2 layer says to what it means for a call, and to what the client is told.

use crate::error::{Failure, Fault, Progress};
use crate::wire::status::{Code, Status, code_for_h2_reason};

/// The failure behind an error of a stream that was handed to a connection.
pub fn from_h2(error: &h2::Error) -> Failure {
    let reason = error.reason();
    if error.is_remote() && error.is_go_away() {
        // Only streams above the last id of a GOAWAY fail with it.
        return refused("the endpoint is going away", reason);
    }
    if error.is_remote() && error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM) {
        return refused("the endpoint refused the stream", reason);
    }
    match reason {
        Some(reason) if error.is_reset() => Failure {
            progress: Progress::Sent,
            fault: Fault::Reset(reason.into()),
            detail: format!("etcd reset the stream: {reason:?}").into(),
        },
        _ => Failure {
            progress: Progress::Sent,
            fault: Fault::ConnectionLost,
            detail: format!("the connection to etcd was lost: {error}").into(),
        },
    }
}

/// The failure of a call that a connection did not even take.
pub fn not_taken(error: &h2::Error) -> Failure {
    Failure {
        progress: Progress::Unsent,
        fault: Fault::ConnectionLost,
        detail: format!("the connection to etcd accepts no more calls: {error}").into(),
    }
}

/// etcd's own UNAVAILABLE.
pub fn unavailable() -> Failure {
    Failure {
        progress: Progress::Sent,
        fault: Fault::Unavailable,
        detail: "etcd returned UNAVAILABLE".into(),
    }
}

/// What the client is told (P6). UNAVAILABLE for all that concerns connections; a reset keeps
/// its meaning, except that CANCELLED is never made up (E6).
pub fn status(failure: &Failure) -> Status {
    let code = match failure.fault {
        Fault::NoEndpoint | Fault::ConnectionLost | Fault::Unavailable => Code::Unavailable,
        Fault::Reset(reason) => code_for_h2_reason(reason),
        Fault::Rejected(code) => Code::from_u8(code),
    };
    Status::new(code, failure.detail.clone())
}

fn refused(detail: &'static str, reason: Option<h2::Reason>) -> Failure {
    Failure {
        progress: Progress::Refused,
        fault: Fault::Reset(reason.unwrap_or(h2::Reason::REFUSED_STREAM).into()),
        detail: detail.into(),
    }
}

/// A request that may not leave for etcd.
pub fn kept(status: Status) -> Failure {
    Failure {
        progress: Progress::Unsent,
        fault: Fault::Rejected(status.code.as_u8()),
        detail: status.message,
    }
}

/// The connection was retired between the pick and the call.
pub fn retired() -> Failure {
    Failure {
        progress: Progress::Unsent,
        fault: Fault::ConnectionLost,
        detail: "the connection to etcd is being replaced".into(),
    }
}
