//! What is counted of each endpoint.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::counter::{Counter, SharedCounter};
use super::traffic::Traffic;

/// One endpoint, counted by whichever worker sees it.
#[derive(Debug)]
pub struct EndpointMetrics {
    /// The endpoint as logs show it.
    pub name: String,
    /// Times it was picked to serve.
    pub picked: SharedCounter,
    /// Connections that came up.
    pub connects: SharedCounter,
    /// Dials and connections that failed.
    pub failures: SharedCounter,
    /// Times it was left out for doing worse than the others.
    pub ejections: SharedCounter,
    workers: Box<[CachePadded<EndpointCalls>]>,
}

/// Calls of one worker to one endpoint.
#[derive(Debug, Default)]
pub struct EndpointCalls {
    /// Calls that were sent, of the proxy's own too.
    pub requests: Counter,
    /// Connections open now.
    pub connections: Counter,
    /// Streams open now.
    pub streams: Counter,
    /// HTTP/2, as it is inside TLS.
    pub traffic: Traffic,
    /// Where endpoints share calls: unary calls open now.
    pub open: Counter,
    /// Those answered, by their latency; the steps are the picker's.
    pub answered: [Counter; LATENCY_STEPS],
    /// Those that failed by the endpoint's doing.
    pub failed: Counter,
}

/// Latencies that are told apart.
pub const LATENCY_STEPS: usize = 24;

impl EndpointMetrics {
    /// All at zero, counted by so many workers.
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

    /// What this worker counts.
    pub fn worker(&self, worker: usize) -> &EndpointCalls {
        &self.workers[worker]
    }

    /// What each worker counts.
    pub fn workers(&self) -> impl Iterator<Item = &EndpointCalls> {
        self.workers.iter().map(|calls| &**calls)
    }
}

/// The endpoints that are in the list now, in the order they came.
#[derive(Debug)]
pub struct EndpointList {
    all: Mutex<Vec<Arc<EndpointMetrics>>>,
    workers: usize,
}

impl EndpointList {
    /// Empty, for so many workers.
    pub fn new(workers: usize) -> EndpointList {
        EndpointList {
            all: Mutex::default(),
            workers,
        }
    }

    /// One has come.
    pub fn add(&self, name: String) -> Arc<EndpointMetrics> {
        let endpoint = Arc::new(EndpointMetrics::new(name, self.workers));
        self.all.lock().push(endpoint.clone());
        endpoint
    }

    /// One has gone, and is shown no more.
    pub fn remove(&self, endpoint: &Arc<EndpointMetrics>) {
        self.all.lock().retain(|e| !Arc::ptr_eq(e, endpoint));
    }

    /// Those that are there.
    pub fn all(&self) -> Vec<Arc<EndpointMetrics>> {
        self.all.lock().clone()
    }
}
