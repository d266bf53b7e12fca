//! Leases: clients' heartbeats on one side, one stream to etcd on the other, and the hub of
//! `machine/lease` between them. Here its words become deeds.
//!
//! The line of an identity (its hub and the streams to etcd) is owned by one worker, told by the
//! identity's number; clients on other workers are heard and answered by mail. What clients say is
//! gathered for a turn of their worker, so that many heartbeats are one letter and one write.
//!
//! From the clients down: `client` reads what they ask once `verify` has found their tokens good, `work`
//! hands it to the hub, `turn` does what that says, `keeper` starts the lanes and asks about
//! leases (`examine`), and each `lane` keeps a stream to etcd. `line` and `state` are what is kept of it all.

mod client;
mod hub_driver;
pub(super) mod inbox;
pub mod state;
mod supervisor;
pub(super) mod tasks;
mod token_check;
mod tokens;
mod ttl_check;
mod upstream_link;
mod upstream_stream;

pub(super) use client::serve;
