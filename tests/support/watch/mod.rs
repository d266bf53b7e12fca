//! Watches for tests: typed messages, clients that keep all they were told and resume as etcd's own
//! client does, the truth read from etcd, and the judgement of the one against the other.

pub mod checker;
pub mod client;
pub mod messages;
pub mod stream;
pub mod truth;
