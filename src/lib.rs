//! etcd-edge: a stateless reverse proxy for etcd at the gRPC layer, on HTTP/2 frames.
//!
//! The tree is the path of the data; read it from the bottom up:
//! [`wire`] (bytes and their meaning), `machine` (pure decisions), `net` (sockets, TLS, relaying),
//! `profile` (of the running program),
//! `upstream` (calls to etcd), `service` (what is done with each call), `server` (clients),
//! and at the top the command line and the life of the process. A file imports only from
//! layers below its own; `tests/tidy.rs` holds that.

pub mod app;
pub mod call_log;
pub mod cli;
pub mod config;
pub mod driver;
pub mod error;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod profile;
pub mod server;
pub mod state_machine;
pub mod upstream;
pub mod wire;
