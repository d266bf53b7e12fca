//! Reads: answered from what is kept, or shared with others that ask the same, where that breaks no
//! promise (R1 to R6); the rest goes its plain way.
//!
//! `asking` says what a call asks and for whom, and `plan` what is to be done about it: `give` gives what
//! is kept, `kept` keeps what comes back, `renew` asks anew in time, `audit` holds what was given against
//! etcd, `rounds` lets those who ask the same
//! share, `waiting` is the way of a read that is not plain. `writes` raises the floors. `answers` is what
//! all workers keep together, `state` what one keeps.

pub mod answers;
mod asking;
mod audit;
mod give;
pub(super) mod kept;
pub(super) mod plan;
mod renew;
mod rounds;
mod state;
pub(super) mod waiting;
pub(super) mod writes;

pub use state::Reads;
