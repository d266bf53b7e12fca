//! Watches: the driver of the state machines in `state_machine/watch`.
//!
//! Many client streams share few upstream streams. Each worker has one watch hub, which serves the
//! client watchers of that worker (W1, W2). Each identity has one shared upstream link: a trunk and
//! its upstream stream. One worker owns the link and sends its events to the hubs of the other
//! workers as messages. A link for a catch-up is private: the worker of the hub that opened it owns
//! it.
//!
//! Modules, from the clients to etcd:
//! - `client` reads the requests of one client stream, `bypass` selects ranges that share nothing.
//! - `hub_driver` carries out the actions of the hub, with `permission_checks` and `checks` for
//!   reads of etcd. `outbox` collects the inputs of the hub.
//! - `link_table` starts and finds links. `upstream_link` carries out the actions of a trunk,
//!   `upstream_stream` opens and reads the upstream stream with `upstream_response` and
//!   `etcd_version`. `token_search` looks for a token that works.
//! - `cache_proofs` and `cache_proof_table` watch the ranges of cached responses (R2), with feeds
//!   of links that serve no client.
//! - `state` has the values of one worker, `tasks` its background tasks.

mod bypass;
mod cache_proof_table;
mod cache_proofs;
mod checks;
mod client;
mod etcd_version;
pub(super) mod hub_driver;
mod link_table;
mod outbox;
mod permission_checks;
pub mod state;
pub(super) mod tasks;
mod token_search;
mod upstream_link;
pub(super) mod upstream_response;
mod upstream_stream;

pub(super) use client::serve;
