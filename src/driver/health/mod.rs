//! Health of the proxy, for the admin interface and `grpc.health.v1`.
//!
//! All health probes in the process share one in-flight read of etcd and its result, which stays
//! valid for a short time.
//!
//! `etcd_check` sends the requests to etcd, `etcd_pages` reads etcd's own health pages, `state::health` has the shared results and the
//! subscribers, and `probes` runs the shared checks. `calls` responds to Check and List, and
//! `subscribers` serves Watch.

mod calls;
mod etcd_check;
mod etcd_pages;
mod probes;
mod subscribers;

pub use crate::driver::state::check_report::{CheckOutcome, CheckReport};
pub(super) use calls::check;
pub use probes::{check_etcd, check_livez, check_proxy, check_readyz, proxy_livez, proxy_readyz};
pub(super) use subscribers::serve_watch;
