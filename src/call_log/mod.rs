//! What is told of each call once it is over: to the log, to an access log, to a collector of traces.
//!
//! A call that is to be told of has a [`Record`], which notes on its way what was asked and answered; all
//! others have none, and what would note it is one branch each. At the end it becomes an [`Entry`], and
//! leaves the worker through queues that never block: what does not fit is counted and lost.

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
pub use writer::Target;
