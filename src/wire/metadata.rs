//! Names of metadata that the proxy reads or writes, ready to be looked up: a name as text is checked
//! and lowered at every look.

use http::HeaderName;

/// The client's time, see [`timeout`](super::timeout).
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How a call ended, see [`status`](super::status).
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// In words.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The client wants an error rather than to wait, where there is no leader (W12).
pub const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// The client's token.
pub const TOKEN: HeaderName = HeaderName::from_static("token");

/// The client wants to share nothing (W13).
pub const BYPASS: HeaderName = HeaderName::from_static("etcd-edge-bypass");

/// The trace that the call belongs to, see [`trace`](super::trace).
pub const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
