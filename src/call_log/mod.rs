//! Access log, call log and spans: one entry per finished call, for the log, a file or a collector.
//!
//! An observed call has a `LoggedCall`, which counts its messages and records the source of the
//! response. Other calls have none; the check costs one branch. At its end the call becomes a
//! `FinishedCall` and leaves the worker through queues that never block: items beyond the capacity
//! of a queue are dropped and counted.

mod collector;
pub mod describe;
pub mod finished_call;
mod line;
mod observer;
pub mod open_call;
mod queue;
mod spans;
mod writer;

pub use collector::CollectorUrl;
pub use observer::{Observer, ObserverOptions};
pub use spans::SpanOptions;
pub use writer::AccessLogTarget;
