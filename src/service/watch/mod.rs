//! Watches: clients' streams on one side, few streams to etcd on the other, and the two machines of
//! `machine/watch` between them. Here the machines' words become deeds.
//!
//! Each worker has a hub for its clients. The shared line of an identity (a trunk and its stream to
//! etcd) is owned by one worker, which tells hubs on others by mail; a line that catches up lives
//! with the hub that asked for it.
//!
//! From the clients down: `client` reads what they ask, `work` does what the hub says, `line` and
//! `upstream` what a trunk says, over the `road` to an endpoint that serves. `state` is what one
//! worker keeps of it all.

mod ask;
mod bypass;
mod client;
mod granted;
mod line;
mod outbox;
mod release;
mod road;
pub mod state;
pub mod status;
pub mod tasks;
mod upstream;
mod work;

pub(super) use bypass::asks_for_bypass;
pub(super) use client::serve;
