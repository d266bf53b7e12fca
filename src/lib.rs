//! etcd-edge: a stateless reverse proxy for etcd at the gRPC layer, on HTTP/2 frames.
//!
//! The modules are layers. From the bottom up:
//!
//! - [`error`], [`limits`], [`metrics`]: failures, every limit by name, counters.
//! - [`wire`]: encoding and decoding of the bytes of gRPC and etcd messages.
//! - [`state_machine`]: decisions, without IO.
//! - [`net`]: sockets, TLS, HTTP/2 streams, timers.
//! - [`profile`]: CPU and memory profiles of the running program.
//! - [`upstream`]: endpoints, connections and calls to etcd.
//! - [`call_log`]: the access log and the spans of calls.
//! - [`driver`]: carries out each call and what the state machines decide.
//! - [`server`]: client connections and the admin pages.
//! - [`config`], [`cli`], [`app`]: options, command line, start and stop of the process.
//!
//! A file imports only from the layers below its own. `tests/tidy.rs` checks that. Comments refer
//! to the rules of `docs/reference/guarantees.md` by their numbers, such as (W3).

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
