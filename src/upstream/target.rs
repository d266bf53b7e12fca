//! An endpoint of the list with its id, its addressing and its metrics. Workers and connections
//! share it, and it lives until its last connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::uri::{Authority, Scheme as UriScheme};
use parking_lot::Mutex;

use crate::metrics::EndpointMetrics;
use crate::state_machine::picker::EndpointId;
use crate::upstream::endpoint::{Endpoint, Scheme};
use crate::upstream::endpoint_status::{EndpointStatus, Reachability};

/// An endpoint of the list, and the values that are computed once for it.
#[derive(Debug)]
pub struct EndpointTarget {
    /// Id in the list.
    pub id: EndpointId,
    /// Scheme and address.
    pub endpoint: Endpoint,
    /// `:scheme` of requests to it.
    pub scheme: UriScheme,
    /// `:authority` of requests to it.
    pub authority: Authority,
    /// Whether outlier detection compares the endpoint with others, so its calls are measured.
    pub compared: bool,
    /// Metrics of the endpoint.
    pub metrics: Arc<EndpointMetrics>,
    /// Number of connections that accept calls, all workers together.
    pub(super) usable_connections: AtomicUsize,
    /// Whether it can be reached, and what its member has reported.
    pub status: Mutex<EndpointStatus>,
}

impl EndpointTarget {
    /// Creates the target of an endpoint that is added to the list.
    pub fn new(
        id: EndpointId,
        endpoint: Endpoint,
        compared: bool,
        metrics: Arc<EndpointMetrics>,
    ) -> EndpointTarget {
        let scheme = match endpoint.scheme {
            Scheme::Tls => UriScheme::HTTPS,
            Scheme::Plain | Scheme::Unspecified => UriScheme::HTTP,
        };
        // A host that a resolver accepts and HTTP does not is replaced with a valid name.
        let authority = Authority::try_from(endpoint.authority())
            .unwrap_or_else(|_| Authority::from_static("etcd"));
        EndpointTarget {
            id,
            endpoint,
            scheme,
            authority,
            compared,
            metrics,
            usable_connections: AtomicUsize::new(0),
            status: Mutex::default(),
        }
    }

    /// Reports whether a worker has a connection that accepts calls, or the last dial succeeded.
    pub(super) fn is_reachable(&self) -> bool {
        self.usable_connections.load(Ordering::Relaxed) > 0
            || self.status.lock().reachability() == Reachability::Reachable
    }

    /// Reports whether the last dial has failed and no worker has a connection that accepts calls.
    /// A lost connection is no proof: the next dial may succeed.
    pub(super) fn is_gone(&self) -> bool {
        self.usable_connections.load(Ordering::Relaxed) == 0
            && self.status.lock().reachability() == Reachability::Unreachable
    }
}
