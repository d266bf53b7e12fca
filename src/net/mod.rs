//! Sockets, TLS, HTTP/2 connections and relaying with back-pressure. Knows nothing of etcd.

pub mod drain;
pub mod io;
pub mod load;
pub mod payload;
pub mod pump;
pub mod sniff;
pub mod stream;
pub mod timers;
pub mod tls;

mod ahead;
