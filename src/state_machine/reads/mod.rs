//! Shared and cached reads: the decisions behind rules R1 to R6.

pub mod batching;
pub mod cache;
pub mod coalescing;
pub mod invalidation_floor;
pub mod popularity;
pub mod watch_proof;
