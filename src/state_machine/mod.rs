//! State machines: pure decisions, without IO.
//!
//! Values go in, actions come out. There is no IO, clock, lock or task. Time and random numbers are
//! arguments, so a state machine behaves the same in production, model tests and fuzz targets. The
//! drivers in `src/driver` carry the actions out.

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
