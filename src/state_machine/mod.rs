//! Pure decisions: values in, actions out. No io, clock, lock or task; time and chance come in
//! as arguments, so each machine runs the same in production, model test and fuzz target.

pub mod fleet;
pub mod flood;
pub mod health;
pub mod keepalive;
pub mod lease;
pub mod picker;
pub mod ping_strikes;
pub mod reads;
pub mod retry;
pub mod timer_wheel;
pub mod token_bucket;
pub mod watch;
