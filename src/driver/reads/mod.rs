//! Read path: serves a read from the cache, shares it with identical reads, or sends it to etcd (R1
//! to R6).
//!
//! | module | purpose |
//! |---|---|
//! | `request` | a parsed read and its caller |
//! | `plan` | decides how a read is served |
//! | `lookup` | serves cache hits |
//! | `store` | stores responses and permissions |
//! | `refresh` | refreshes popular entries before they expire |
//! | `audit` | compares cache hits with etcd |
//! | `coalesce` | lets identical reads share one upstream read |
//! | `waiting` | serves reads that wait |
//!
//! The cache itself is `state::read_cache`, shared by all workers. The state of one worker is
//! `state::reads`. Writes invalidate the cache in `relay::cache_invalidation`.

mod audit;
mod coalesce;
mod lookup;
pub(super) mod plan;
mod refresh;
mod request;
pub(super) mod store;
pub(super) mod waiting;

pub use crate::driver::state::reads::Reads;
