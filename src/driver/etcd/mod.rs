//! The proxy's own calls to etcd: hedged reads, the endpoint of a call or stream, and the parts that
//! upstream streams share.

pub(super) mod client;
pub(super) mod endpoint_check;
pub(super) mod first_attempt;
pub(super) mod hedged_read;
pub(super) mod leader_lookup;
pub(super) mod member_sync;
pub(super) mod response_reader;
pub(super) mod stream_endpoint;
pub(super) mod stream_liveness;
pub(super) mod stream_slot;
pub(super) mod token_query;
