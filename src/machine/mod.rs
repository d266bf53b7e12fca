//! Pure decisions: values in, actions out. No io, clock, lock or task; time and chance come in
//! as arguments, so each machine runs the same in production, model test and fuzz target.

pub mod bucket;
pub mod fleet;
pub mod flood;
pub mod health;
pub mod lease;
pub mod picker;
pub mod pings;
pub mod reads;
pub mod retry;
pub mod silence;
pub mod watch;
pub mod wheel;
