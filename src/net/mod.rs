//! Sockets, TLS, byte streams, timers, and relaying with back-pressure. Independent of etcd.

pub mod drain;
pub mod io;
pub(super) mod lazy_timer;
pub mod payload;
pub mod pump;
pub mod sniff;
pub mod socket;
pub mod stream;
pub mod timers;
pub mod tls;
pub mod worker_load;

mod ahead;
