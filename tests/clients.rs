//! Real clients of other languages and versions through the proxy: Go 3.5.0, 3.5.1 and newest, Java,
//! Python, Node.js, Rust, and etcdctl 3.4 to 3.7 (P1). Each uses put, get, txn, watches, leases and
//! locks, in plaintext and with TLS, with and without auth.
//!
//! A client whose runtime is missing fails with the command that installs it. `scripts/test.sh`
//! skips it instead.

mod support;

#[path = "clients/contract.rs"]
mod contract;
#[path = "clients/etcdctl.rs"]
mod etcdctl;
#[path = "clients/etcdctl_steps.rs"]
mod etcdctl_steps;
#[path = "clients/go.rs"]
mod go;
#[path = "clients/jetcd.rs"]
mod jetcd;
#[path = "clients/node.rs"]
mod node;
#[path = "clients/programs.rs"]
mod programs;
#[path = "clients/python.rs"]
mod python;
#[path = "clients/rust.rs"]
mod rust;
