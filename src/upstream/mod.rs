//! Connections and calls to etcd: endpoints, dialing, connection pools, and single calls with their
//! failures.
//!
//! The purpose of a call is left to the drivers.

pub mod attempt;
pub mod call_sample;
pub mod conn;
pub mod dial;
pub mod dial_error;
pub mod discovery;
pub mod endpoint;
pub mod endpoint_status;
pub mod endpoints;
pub mod failure;
pub mod http1_client;
pub mod member_list;
pub mod pool;
pub mod selection_history;
pub mod target;
