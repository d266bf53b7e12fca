//! Reads: answered from what is kept, or shared with others that ask the same, where that breaks no
//! promise (R1 to R6); the rest goes its plain way.
//!
//! `asking` says what a call asks and for whom, and `plan` what is to be done about it: `give` gives what
//! is kept, `kept` keeps what comes back, `renew` asks anew in time, `audit` holds what was given against
//! etcd, `rounds` lets those who ask the same
//! share, `waiting` is the way of a read that is not plain. `writes` raises the floors. `answers` is what
//! all workers keep together, `state` what one keeps.

mod audit;
mod coalesce;
mod lookup;
pub(super) mod plan;
mod refresh;
mod request;
pub(super) mod store;
pub(super) mod waiting;

pub use crate::driver::state::reads::Reads;
