//! Errors of namespace translation, and the status that a client receives for each.

use crate::wire::proto::ProtoError;
use crate::wire::status::{Code, Status};

/// Defect of a message that must not pass a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageDefect {
    /// The message is malformed protobuf, or nested too deep.
    Proto(ProtoError),
    /// The field with this number has a wrong wire type. Some parsers skip such a field.
    WireType(u32),
    /// A singular message or a oneof occurs twice: some parsers use the last, others merge both.
    /// The number is the field number of the second occurrence.
    Duplicate(u32),
    /// A required key is missing or empty.
    MissingKey,
    /// The message needs more than [`crate::limits::TRANSLATED_PLACES`] edits.
    TooManyEdits,
    /// The message exceeds the maximum length, before or after translation.
    TooLong,
    /// The message contains a key outside the namespace.
    OutsideNamespace,
}

impl From<ProtoError> for MessageDefect {
    fn from(error: ProtoError) -> MessageDefect {
        MessageDefect::Proto(error)
    }
}

impl std::fmt::Display for MessageDefect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proto(error) => error.fmt(f),
            Self::WireType(number) => write!(f, "field {number} has the wrong wire type"),
            Self::Duplicate(number) => write!(f, "field {number} occurs twice"),
            Self::MissingKey => f.write_str("key is missing"),
            Self::TooManyEdits => f.write_str("too many keys"),
            Self::TooLong => f.write_str("message too long"),
            Self::OutsideNamespace => f.write_str("key outside the namespace"),
        }
    }
}

/// Error for a message that must not pass a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranslationError {
    /// A client's request that etcd would reject with this code and text.
    Etcd(Code, &'static str),
    /// A client's request that only the proxy rejects.
    Request(MessageDefect),
    /// A response of etcd. The client must not see any part of it (N1).
    Response(MessageDefect),
}

impl TranslationError {
    /// Creates the error for a client's request. `missing_key` is the code with which etcd rejects
    /// an empty key in it.
    pub(super) fn request(defect: MessageDefect, missing_key: Code) -> TranslationError {
        match defect {
            MessageDefect::MissingKey => {
                TranslationError::Etcd(missing_key, "etcdserver: key is not provided")
            }
            // Only transactions nest, and only transactions contain that many keys.
            MessageDefect::Proto(ProtoError::TooDeep) | MessageDefect::TooManyEdits => {
                TranslationError::Etcd(
                    Code::InvalidArgument,
                    "etcdserver: too many operations in txn request",
                )
            }
            _ => TranslationError::Request(defect),
        }
    }

    /// Returns the status that ends the call.
    pub fn status(&self) -> Status {
        match self {
            Self::Etcd(code, text) => Status::new(*code, *text),
            Self::Request(_) => Status::new(Code::InvalidArgument, self.to_string()),
            Self::Response(_) => Status::new(Code::Internal, self.to_string()),
        }
    }
}

impl std::fmt::Display for TranslationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Etcd(_, text) => f.write_str(text),
            Self::Request(defect) => write!(f, "etcd-edge: malformed request: {defect}"),
            Self::Response(defect) => write!(f, "etcd-edge: response of etcd rejected: {defect}"),
        }
    }
}

impl std::error::Error for TranslationError {}
