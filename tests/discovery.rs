//! Where the list of endpoints comes from and how it changes while clients are served: the cluster's
//! member list.

mod support;

#[path = "discovery/sync.rs"]
mod sync;
