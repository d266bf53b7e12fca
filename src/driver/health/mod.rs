//! The proxy's health, as its pages and `grpc.health.v1` tell it. Whoever asks, and on whichever worker,
//! one read at a time goes to etcd, and what it says counts for a moment for all.
//!
//! `etcd` asks it, `state` is what is known and who waits to hear it, `probes` is how the others ask; `calls`
//! answers gRPC and `follow` tells those who want to hear of changes.

mod calls;
mod etcd_check;
mod probes;
mod subscribers;

pub use crate::driver::state::health::Outcome;
pub(super) use calls::check;
pub use probes::{of_proxy, read};
pub(super) use subscribers::follow;
