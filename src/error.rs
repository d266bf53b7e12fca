//! Failures of calls and of the start of the program.
//!
//! A [`Failure`] describes one failed attempt at a call: the cause, and the progress of the call.
//! `state_machine/retry.rs` decides whether the call is retried. `upstream/failure.rs` selects the
//! gRPC status that the client receives.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// The progress of a call when it failed (E2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was sent: no connection was available.
    Unsent,
    /// etcd provably did not process the call: REFUSED_STREAM, or a stream id above that of a
    /// GOAWAY.
    Refused,
    /// The call was passed to a connection. etcd may have processed it.
    Sent,
}

/// The cause of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No endpoint could be reached in time.
    NoEndpoint,
    /// The connection broke.
    ConnectionLost,
    /// etcd reset the stream with this HTTP/2 error code.
    Reset(u32),
    /// etcd answered with the gRPC status UNAVAILABLE.
    Unavailable,
    /// The proxy rejected the request before it was sent. The client receives this gRPC status
    /// code.
    Rejected(u8),
}

/// One failed attempt at a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The progress of the call.
    pub progress: Progress,
    /// The cause.
    pub fault: Fault,
    /// The text for the log and the `grpc-message` of the client.
    pub detail: Cow<'static, str>,
}

impl Failure {
    /// Returns the failure of a call for which no endpoint could be reached. Nothing was sent.
    pub fn no_endpoint() -> Failure {
        // The Go client retries even writes if the text is exactly this one. A retry is correct for
        // this failure and for no other (E3).
        Failure {
            progress: Progress::Unsent,
            fault: Fault::NoEndpoint,
            detail: Cow::Borrowed("there is no connection available"),
        }
    }
}

/// An error that prevents the program from starting or running, as one line for the operator.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    /// Returns the error `SUBJECT: REASON`. The subject is a part of the program, or a flag with
    /// its value.
    pub fn new(subject: impl fmt::Display, reason: impl fmt::Display) -> StartError {
        StartError(format!("{subject}: {reason}"))
    }

    /// Returns the error of the file that `flag` names: `FLAG=PATH: REASON`.
    pub fn file(flag: &str, path: &Path, reason: impl fmt::Display) -> StartError {
        StartError(format!("{flag}={}: {reason}", path.display()))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
