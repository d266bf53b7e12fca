//! Shared parts of the black-box tests: real clusters, proxies as child processes, TLS files, and a
//! gRPC client that exposes every header, message and trailer it receives.
//!
//! Invariants: everything listens on loopback or in its own network namespace. Every child is
//! killed by its id when its owner is dropped, also by a panic. [`exit_cleanup`] removes what a
//! killed test process leaves behind. Assertions about the proxy stay in the tests; a failed setup
//! panics here.

// Each test target is its own crate and uses a different subset of this module.
#![allow(dead_code, unreachable_pub)]

pub mod auth_users;
pub mod browser;
pub mod cluster;
pub mod exit_cleanup;
pub mod go;
pub mod grpc;
pub mod h2_frames;
pub mod heartbeats;
pub mod http;
pub mod load;
pub mod memory;
pub mod net;
pub mod pb;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod proxy_output;
pub mod raw_h2_client;
pub mod release;
pub mod scripted_etcd;
pub mod tls;
pub mod watch;
