//! Reads: many that ask the same, few at etcd, and none older than it may be (R1 to R6).

pub mod batching;
pub mod cache;
pub mod coalescing;
pub mod invalidation_floor;
pub mod popularity;
pub mod watch_proof;
