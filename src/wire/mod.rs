//! Wire formats: gRPC framing, protobuf, etcd's messages and methods, status codes, timeouts, and
//! the few other formats that the proxy reads or writes.
//!
//! Pure functions and values: no IO, no clock, no lock, no tokio. Every parser accepts any input
//! without a panic and with bounded memory.
//!
//! Not here: transport of the bytes (`net`, `upstream`), and decisions about calls
//! (`state_machine`, `driver`).

pub mod compression;
pub mod frame;
pub mod gzip;
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
