//! Watches for tests: typed messages, clients that record every message and resume as etcd's own
//! client does, the event history read from etcd, and the check of the records against the history.

pub mod checker;
pub mod client;
pub mod history;
pub mod messages;
pub mod stream;
