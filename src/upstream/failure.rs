//! Converts HTTP/2 errors to call failures, and call failures to the status for the client.

use crate::error::{Failure, Fault, Progress};
use crate::wire::status::{Code, Status, code_for_h2_reason};

/// Returns the failure for an error of an open stream.
pub fn from_h2(error: &h2::Error) -> Failure {
    let reason = error.reason();
    if error.is_remote() && error.is_go_away() {
        // A GOAWAY fails only the streams above its last stream id.
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

/// Returns the failure of a call that a connection did not accept. Nothing was sent.
pub fn not_accepted(error: &h2::Error) -> Failure {
    Failure {
        progress: Progress::Unsent,
        fault: Fault::ConnectionLost,
        detail: format!("the connection to etcd accepts no more calls: {error}").into(),
    }
}

/// Returns the failure for an UNAVAILABLE that etcd itself returned.
pub fn unavailable() -> Failure {
    Failure {
        progress: Progress::Sent,
        fault: Fault::Unavailable,
        detail: "etcd returned UNAVAILABLE".into(),
    }
}

/// Returns the status for the client (P6). Failures of connections are UNAVAILABLE. A reset has
/// the status of its HTTP/2 code, but the proxy never creates CANCELLED (E6).
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

/// Returns the failure of a request that the proxy rejects. Nothing was sent.
pub fn rejected(status: Status) -> Failure {
    Failure {
        progress: Progress::Unsent,
        fault: Fault::Rejected(status.code.as_u8()),
        detail: status.message,
    }
}

/// Returns the failure of a call on a connection that was retired just before. Nothing was sent.
pub fn retired() -> Failure {
    Failure {
        progress: Progress::Unsent,
        fault: Fault::ConnectionLost,
        detail: "the connection to etcd is being replaced".into(),
    }
}
