//! Metrics of endpoints.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::counter::{Counter, SharedCounter};
use super::traffic::Traffic;

/// Metrics of one endpoint.
#[derive(Debug)]
pub struct EndpointMetrics {
    /// Name of the endpoint in logs and labels.
    pub name: String,
    /// Times the endpoint was picked to receive all calls.
    pub picked: SharedCounter,
    /// Connections established.
    pub connects: SharedCounter,
    /// Failed dials and lost connections.
    pub failures: SharedCounter,
    /// Times outlier detection ejected the endpoint.
    pub ejections: SharedCounter,
    workers: Box<[CachePadded<EndpointCalls>]>,
}

/// Calls of one worker to one endpoint.
#[derive(Debug, Default)]
pub struct EndpointCalls {
    /// Calls sent, including those of the proxy itself.
    pub requests: Counter,
    /// Open connections.
    pub connections: Counter,
    /// Open HTTP/2 streams.
    pub streams: Counter,
    /// HTTP/2 bytes inside TLS.
    pub traffic: Traffic,
    /// Open unary calls. Counted only if calls are balanced over endpoints.
    pub open_unary: Counter,
    /// Unary calls with a response, by latency step of the picker. Counted only if calls are
    /// balanced.
    pub latencies: [Counter; LATENCY_STEPS],
    /// Unary calls that failed because of the endpoint. Counted only if calls are balanced.
    pub failed: Counter,
}

/// Number of latency steps.
pub const LATENCY_STEPS: usize = 24;

impl EndpointMetrics {
    /// Creates metrics at zero for this number of workers.
    pub fn new(name: String, workers: usize) -> EndpointMetrics {
        EndpointMetrics {
            name,
            picked: SharedCounter::default(),
            connects: SharedCounter::default(),
            failures: SharedCounter::default(),
            ejections: SharedCounter::default(),
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Returns the counters of one worker.
    pub fn worker(&self, worker: usize) -> &EndpointCalls {
        &self.workers[worker]
    }

    /// Returns the counters of all workers.
    pub fn workers(&self) -> impl Iterator<Item = &EndpointCalls> {
        self.workers.iter().map(|calls| &**calls)
    }
}

/// Metrics of the current endpoints, in the order of their addition.
#[derive(Debug)]
pub struct EndpointList {
    all: Mutex<Vec<Arc<EndpointMetrics>>>,
    workers: usize,
}

impl EndpointList {
    /// Creates an empty list for this number of workers.
    pub fn new(workers: usize) -> EndpointList {
        EndpointList {
            all: Mutex::default(),
            workers,
        }
    }

    /// Adds an endpoint.
    pub fn add(&self, name: String) -> Arc<EndpointMetrics> {
        let endpoint = Arc::new(EndpointMetrics::new(name, self.workers));
        self.all.lock().push(endpoint.clone());
        endpoint
    }

    /// Removes an endpoint, which ends its export.
    pub fn remove(&self, endpoint: &Arc<EndpointMetrics>) {
        self.all.lock().retain(|e| !Arc::ptr_eq(e, endpoint));
    }

    /// Returns the current endpoints.
    pub fn all(&self) -> Vec<Arc<EndpointMetrics>> {
        self.all.lock().clone()
    }
}
