//! Watches: clients' streams on one side, few streams to etcd on the other, and the two machines of
//! `machine/watch` between them. Here the machines' words become deeds.
//!
//! Each worker has a hub for its clients. The shared line of an identity (a trunk and its stream to
//! etcd) is owned by one worker, which tells hubs on others by mail; a line that catches up lives
//! with the hub that asked for it.
//!
//! From the clients down: `client` reads what they ask, `work` does what the hub says, `line` and
//! `upstream` what a trunk says, and `lines` keeps them. `cover` is a reader of lines that is no client:
//! it proves kept answers right. `state` is what one worker keeps of it all.

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
mod upstream_link;
pub(super) mod upstream_response;
mod upstream_stream;

pub(super) use client::serve;
