//! Endpoint discovery: the endpoint list comes from SRV records or the cluster's member list, and
//! changes while the proxy serves clients.

mod support;

#[path = "discovery/dns.rs"]
mod dns;
#[path = "discovery/srv.rs"]
mod srv;
#[path = "discovery/sync.rs"]
mod sync;
