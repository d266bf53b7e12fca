//! Leases: the driver of the lease hub in `state_machine/lease`.
//!
//! All heartbeats of one identity share one upstream stream (L1). Each identity has one upstream
//! link: a lease hub and its upstream streams. The number of the identity selects the worker that
//! owns the link. Clients on other workers reach it by messages. A worker collects the inputs of
//! its clients until its next turn, so that many heartbeats need one message and one write.
//!
//! Modules, from the clients to etcd:
//! - `client` reads the requests of one client stream, after `token_check` has validated its token.
//!   `accepted_tokens` caches valid tokens.
//! - `inbox` delivers the inputs to the hub, on this or another worker.
//! - `hub_driver` carries out the actions of the hub.
//! - `supervisor` is the task of a link: it starts its streams and the reads of `ttl_check`.
//! - `upstream_link` has the values of a link, `upstream_stream` opens and reads one upstream
//!   stream.
//! - `state` has the values of one worker, `tasks` its background tasks.

mod accepted_tokens;
mod client;
mod hub_driver;
pub(super) mod inbox;
pub mod state;
mod supervisor;
pub(super) mod tasks;
mod token_check;
mod ttl_check;
mod upstream_link;
mod upstream_stream;

pub(super) use client::serve;
