//! Why a message does not pass a namespace, and what its caller is told.

use crate::wire::proto::ProtoError;
use crate::wire::status::{Code, Status};

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is no protobuf message, or nested too deep.
    Proto(ProtoError),
    /// A field of this number has a layout that is not its own: some parsers pass over it.
    Layout(u32),
    /// What may be there once is there twice: parsers take the last, or make one of both. The number
    /// is that of the second field.
    Twice(u32),
    /// An empty key, or none, where one is needed.
    NoKey,
    /// More places to change than [`crate::limits::TRANSLATED_PLACES`].
    TooMany,
    /// It is longer than any message may be, or would become so.
    TooLong,
    /// It has a key that is not in the namespace.
    Outside,
}

impl From<ProtoError> for Fault {
    fn from(error: ProtoError) -> Fault {
        Fault::Proto(error)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proto(error) => error.fmt(f),
            Self::Layout(number) => write!(f, "field {number} has the wrong wire type"),
            Self::Twice(number) => write!(f, "field {number} occurs twice"),
            Self::NoKey => f.write_str("key is missing"),
            Self::TooMany => f.write_str("too many keys"),
            Self::TooLong => f.write_str("message too long"),
            Self::Outside => f.write_str("key outside the namespace"),
        }
    }
}

/// A message that does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A client's request that etcd would refuse in these words.
    AsEtcd(Code, &'static str),
    /// A client's request that only the proxy refuses.
    Request(Fault),
    /// An answer of etcd's. Nothing of it may be shown (N1).
    Answer(Fault),
}

impl Refusal {
    /// A client's request. `no_key` is the code with which etcd refuses an empty key in it.
    pub(super) fn request(fault: Fault, no_key: Code) -> Refusal {
        match fault {
            Fault::NoKey => Refusal::AsEtcd(no_key, "etcdserver: key is not provided"),
            // Only transactions nest, and nothing else has that many keys.
            Fault::Proto(ProtoError::TooDeep) | Fault::TooMany => Refusal::AsEtcd(
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
            ),
            _ => Refusal::Request(fault),
        }
    }

    /// What ends the call.
    pub fn status(&self) -> Status {
        match self {
            Self::AsEtcd(code, text) => Status::new(*code, *text),
            Self::Request(_) => Status::new(Code::InvalidArgument, self.to_string()),
            Self::Answer(_) => Status::new(Code::Internal, self.to_string()),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AsEtcd(_, text) => f.write_str(text),
            Self::Request(fault) => write!(f, "etcd-edge: malformed request: {fault}"),
            Self::Answer(fault) => write!(f, "etcd-edge: response of etcd rejected: {fault}"),
        }
    }
}

impl std::error::Error for Refusal {}
