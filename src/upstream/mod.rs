//! Calls to etcd: endpoints, dialing, connections, and one open call with its failure.
//! Knows nothing of what a call is for.

pub mod attempt;
pub mod call_sample;
pub mod conn;
pub mod dial;
pub mod discovery;
pub mod endpoint;
pub mod endpoints;
pub mod etcd_page;
pub mod failure;
pub mod http1_client;
pub mod member_list;
pub mod pool;
pub mod selection_history;
pub mod target;
