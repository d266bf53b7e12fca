//! Names of the metadata that the proxy reads or writes.
//!
//! They are parsed constants. A lookup by `&str` would validate and lower-case the name each time.

use http::HeaderName;

/// The timeout of the call. Its format is in [`timeout`](super::timeout).
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The status code at the end of the call. Its format is in [`status`](super::status).
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The error text of [`GRPC_STATUS`], percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The compression of the messages that are flagged as compressed. Its values are in
/// [`compression`](super::compression).
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Requires a leader: without one the call fails at once instead of waiting (W12).
pub const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// The auth token of the client.
pub const TOKEN: HeaderName = HeaderName::from_static("token");

/// Excludes the call from sharing (W13).
pub const BYPASS: HeaderName = HeaderName::from_static("etcd-edge-bypass");

/// The trace of the call. Its format is in [`trace`](super::trace).
pub const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
