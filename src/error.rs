//! The vocabulary of failures: what failed, on which side, and how far the call had got.
//!
//! A [`Failure`] is a fact about one attempt at a call. Whether it is sent again is decided
//! once, in `state_machine/retry.rs`; which gRPC status the client sees, in `upstream/failure.rs`.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// How far a call had got when it failed (E2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing left this process: no connection could be had.
    Unsent,
    /// etcd provably did not process it: REFUSED_STREAM, or above a GOAWAY's last stream id.
    Refused,
    /// It was handed to a connection; etcd may have processed it.
    Sent,
}

/// What failed.
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
    /// The request may not leave for etcd: this gRPC status code is the client's.
    Kept(u8),
}

/// One failed attempt at a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How far it had got.
    pub progress: Progress,
    /// What failed.
    pub fault: Fault,
    /// For the log and the client's `grpc-message`.
    pub detail: Cow<'static, str>,
}

impl Failure {
    /// No endpoint could be reached, so nothing was sent.
    pub fn no_endpoint() -> Failure {
        // The Go client sends even writes again on this very text, which is right here and
        // nowhere else (E3).
        Failure {
            progress: Progress::Unsent,
            fault: Fault::NoEndpoint,
            detail: Cow::Borrowed("there is no connection available"),
        }
    }
}

/// Why the program could not start or go on; one line for the operator.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    /// `what` names the part and the value, `why` the reason.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> StartError {
        StartError(format!("{what}: {why}"))
    }

    /// A file given by `flag` that could not be used.
    pub fn file(flag: &str, path: &Path, why: impl fmt::Display) -> StartError {
        StartError(format!("{flag}={}: {why}", path.display()))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
