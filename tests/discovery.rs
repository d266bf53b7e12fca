//! Where the list of endpoints comes from and how it changes while clients are served: SRV records, and
//! the cluster's member list.

mod support;

#[path = "discovery/dns.rs"]
mod dns;
#[path = "discovery/srv.rs"]
mod srv;
#[path = "discovery/sync.rs"]
mod sync;
