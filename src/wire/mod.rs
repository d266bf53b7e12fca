//! Bytes and their meaning: gRPC framing, protobuf, methods, status, timeouts. Pure: no io, clock,
//! lock or tokio; every parser takes any input without panicking and without unbounded memory.
//!
//! Left to others: where the bytes come from, and what is done about a call.

pub mod frame;
pub mod heads;
pub mod health;
pub mod json;
pub mod lease;
pub mod metadata;
pub mod method;
pub mod namespace;
pub mod naming;
pub mod pb;
pub mod proto;
pub mod range;
pub mod range_request;
pub mod response_header;
pub mod status;
pub mod timeout;
pub mod trace;
pub mod watch;
pub mod write_set;
