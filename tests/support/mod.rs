//! What the black-box tests share: real clusters, proxies as child processes, TLS material, and a
//! gRPC client that shows every header, message and trailer as it came.
//!
//! Invariants: everything listens on loopback or in a network namespace of its own, every child is killed by its id when its owner is
//! dropped (a panic drops it too), and what a killed test process leaves behind is cleared by the
//! [`janitor`]. What is asserted stays in the tests; here a failure to set the scene panics.

// Each test file is a crate of its own and uses another part of this module.
#![allow(dead_code, unreachable_pub)]

pub mod beats;
pub mod browser;
pub mod cluster;
pub mod go;
pub mod grpc;
pub mod http;
pub mod janitor;
pub mod load;
pub mod memory;
pub mod net;
pub mod pages;
pub mod pb;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod raw_h2;
pub mod release;
pub mod scripted_etcd;
pub mod tls;
pub mod users;
pub mod watch;
