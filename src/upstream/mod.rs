//! Calls to etcd: endpoints, dialing, connections, and one open call with its failure.
//! Knows nothing of what a call is for.

pub mod attempt;
pub mod conn;
pub mod dial;
pub mod discovery;
pub mod endpoint;
pub mod endpoints;
pub mod exchange;
pub mod failure;
pub mod measure;
pub mod page;
pub mod pool;
pub mod roster;
pub mod switches;
pub mod target;
