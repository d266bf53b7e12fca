//! Read path: serves a read from the cache, shares it with identical reads, or sends it to etcd (R1
//! to R6).
//!
//! | module | purpose |
//! |---|---|
//! | `request` | a parsed read and its caller |
//! | `decision` | decides the next step of a read |
//! | `lookup` | finds cache hits |
//! | `store` | stores responses and permissions |
//! | `refresh` | refreshes popular entries before they expire |
//! | `audit` | compares cache hits with etcd |
//! | `coalesce` | lets identical reads share one upstream read |
//! | `waiting` | steps of a read that wait |
//!
//! `driver::unary` is the loop over these steps. The cache itself is `state::read_cache`, shared by
//! all workers. The state of one worker is `state::reads`. Writes invalidate the cache in
//! `relay::cache_invalidation`.

mod audit;
mod coalesce;
pub(super) mod decision;
mod lookup;
mod refresh;
pub(super) mod request;
pub(super) mod store;
pub(super) mod waiting;

pub use crate::driver::state::reads::Reads;
