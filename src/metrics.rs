//! Metrics of the process.
//!
//! Each worker writes its own block, so an update is a plain store to memory that no other core
//! writes. A scrape adds the blocks. Metrics of `etcd grpc-proxy` have the names that its
//! dashboards use; all others begin with `etcd_edge_`. `server::metrics_export` exports them.

mod call_log;
mod calls;
mod counter;
mod endpoint;
mod fleet;
mod histogram;
mod lease;
mod limit;
mod reads;
mod tls;
mod traffic;
mod watch;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_utils::CachePadded;

pub use call_log::CallLogMetrics;
pub use calls::{CODE_COUNT, CallMetrics, DURATION_BUCKETS, FailedAttempts, MethodLabels};
pub use counter::{Counter, Gauge, SharedCounter};
pub use endpoint::{EndpointCalls, EndpointList, EndpointMetrics, LATENCY_STEPS};
pub use fleet::FleetMetrics;
pub use histogram::Histogram;
pub use lease::LeaseMetrics;
pub use limit::Limit;
pub use reads::{CACHE_AGE_BUCKETS, CacheMetrics, ReadMetrics};
pub use tls::{TlsMetrics, TlsSide};
pub use traffic::Traffic;
pub use watch::WatchMetrics;
pub use worker::WorkerMetrics;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    workers: Box<[CachePadded<WorkerMetrics>]>,
    /// Metrics per endpoint.
    pub endpoints: Arc<EndpointList>,
    /// Client connections closed at accept because too many were open.
    pub connections_refused: SharedCounter,
    /// Connections to `--metrics-addr` closed at accept because too many were open.
    pub admin_connections_refused: SharedCounter,
    /// TLS with clients and with etcd.
    pub tls: TlsMetrics,
    /// Read cache.
    pub cache: Arc<CacheMetrics>,
    /// Call log and spans.
    pub call_log: CallLogMetrics,
    /// Fleet.
    pub fleet: Arc<FleetMetrics>,
    /// Highest value exported as `etcd_grpc_proxy_events_coalescing_total`.
    pub(crate) events_coalescing: AtomicU64,
    /// Labels for [`WorkerMetrics::calls`], by index.
    pub(crate) methods: Vec<MethodLabels>,
    /// Names for [`CallMetrics::handled`], by gRPC code.
    pub(crate) code_names: [&'static str; CODE_COUNT],
}

impl Metrics {
    /// Creates one block per worker. Adds one method, the last, for calls of unknown methods.
    pub fn new(
        workers: usize,
        mut methods: Vec<MethodLabels>,
        code_names: [&'static str; CODE_COUNT],
    ) -> Metrics {
        methods.push(MethodLabels {
            unary: false,
            kind: "unknown",
            service: "unknown",
            method: "unknown",
        });
        let block = || {
            CachePadded::new(WorkerMetrics {
                accepted: Counter::default(),
                connections: Counter::default(),
                admin_connections: Counter::default(),
                traffic: Traffic::default(),
                handshake_failures: Counter::default(),
                open_calls: Counter::default(),
                retries: Counter::default(),
                failed_attempts: FailedAttempts::default(),
                watch: WatchMetrics::default(),
                lease: LeaseMetrics::default(),
                reads: ReadMetrics::default(),
                hedged_reads: Counter::default(),
                limits: Default::default(),
                calls: methods.iter().map(|_| CallMetrics::default()).collect(),
            })
        };
        Metrics {
            workers: (0..workers).map(|_| block()).collect(),
            endpoints: Arc::new(EndpointList::new(workers)),
            connections_refused: SharedCounter::default(),
            admin_connections_refused: SharedCounter::default(),
            tls: TlsMetrics::default(),
            cache: Arc::default(),
            call_log: CallLogMetrics::default(),
            fleet: Arc::default(),
            events_coalescing: AtomicU64::new(0),
            methods,
            code_names,
        }
    }

    /// Returns the blocks of all workers.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerMetrics> {
        self.workers.iter().map(|block| &**block)
    }

    /// Returns the block of one worker.
    ///
    /// # Panics
    /// `worker` is not less than the number of workers.
    pub fn worker(&self, worker: usize) -> &WorkerMetrics {
        &self.workers[worker]
    }
}
