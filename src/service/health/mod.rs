//! The proxy's health, as its pages and `grpc.health.v1` tell it. Whoever asks, and on whichever worker,
//! one read at a time goes to etcd, and what it says counts for a moment for all.
//!
//! `etcd` asks it, `state` is what is known and who waits to hear it, `probes` is how the others ask; `calls`
//! answers gRPC and `follow` tells those who want to hear of changes.

mod calls;
mod etcd;
mod follow;
mod probes;
pub mod state;

pub(super) use calls::check;
pub(super) use follow::follow;
pub use probes::{of_proxy, read};
pub use state::Outcome;
