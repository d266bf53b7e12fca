//! One endpoint of the list with all that is settled once: how its requests are addressed, and what
//! is counted of it. Shared by workers and connections, and there until the last connection ends.

use std::sync::Arc;

use http::uri::{Authority, Scheme as UriScheme};

use crate::metrics::EndpointMetrics;
use crate::state_machine::picker::EndpointId;
use crate::upstream::endpoint::{Endpoint, Scheme};

/// See the head of the file.
#[derive(Debug)]
pub struct Target {
    /// Its id in the list.
    pub id: EndpointId,
    /// Where it is.
    pub endpoint: Endpoint,
    /// `:scheme` of requests to it.
    pub scheme: UriScheme,
    /// `:authority` of requests to it.
    pub authority: Authority,
    /// It is compared with the others, so its calls are measured.
    pub compared: bool,
    /// What is counted of it.
    pub metrics: Arc<EndpointMetrics>,
}

impl Target {
    /// For an endpoint that has come to the list.
    pub fn new(
        id: EndpointId,
        endpoint: Endpoint,
        compared: bool,
        metrics: Arc<EndpointMetrics>,
    ) -> Target {
        let scheme = match endpoint.scheme {
            Scheme::Tls => UriScheme::HTTPS,
            Scheme::Plain | Scheme::Unspecified => UriScheme::HTTP,
        };
        // A host that a resolver takes and HTTP does not is shown as what HTTP allows.
        let authority = Authority::try_from(endpoint.authority())
            .unwrap_or_else(|_| Authority::from_static("etcd"));
        Target {
            id,
            endpoint,
            scheme,
            authority,
            compared,
            metrics,
        }
    }
}
