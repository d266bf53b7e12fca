//! What is counted.
//!
//! Each worker counts in a block of its own, so counting is a plain store to memory that no
//! other core writes; a scrape adds the blocks up. Names that dashboards know from the Go proxy
//! are kept, our own begin with `etcd_edge_`.

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
pub use calls::{CODES, CallMetrics, FailedAttempts, LATENCIES, MethodLabels};
pub use counter::{Counter, Gauge, SharedCounter};
pub use endpoint::{EndpointCalls, EndpointList, EndpointMetrics, LATENCY_STEPS};
pub use fleet::FleetMetrics;
pub use histogram::Histogram;
pub use lease::LeaseMetrics;
pub use limit::Limit;
pub use reads::{AGES, AnswerMetrics, ReadMetrics};
pub use tls::{TlsMetrics, TlsSide};
pub use traffic::Traffic;
pub use watch::WatchMetrics;
pub use worker::WorkerMetrics;

/// Everything that is counted in the process.
#[derive(Debug)]
pub struct Metrics {
    workers: Box<[CachePadded<WorkerMetrics>]>,
    /// One per endpoint.
    pub endpoints: Arc<EndpointList>,
    /// Connections closed at accept because there were too many.
    pub connections_refused: SharedCounter,
    /// Connections of `--metrics-addr` closed at accept because there were too many.
    pub page_connections_refused: SharedCounter,
    /// TLS on both sides.
    pub tls: TlsMetrics,
    /// Kept answers.
    pub answers: Arc<AnswerMetrics>,
    /// Calls that were to be told of.
    pub records: CallLogMetrics,
    /// The fleet.
    pub fleet: Arc<FleetMetrics>,
    /// The most that was shown.
    pub(crate) events_coalescing: AtomicU64,
    /// Of [`WorkerMetrics::calls`].
    pub(crate) methods: Vec<MethodLabels>,
    /// Of [`CallMetrics::handled`].
    pub(crate) code_names: [&'static str; CODES],
}

impl Metrics {
    /// Blocks for so many workers; a further method is added for those that are not known.
    pub fn new(
        workers: usize,
        mut methods: Vec<MethodLabels>,
        code_names: [&'static str; CODES],
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
                page_connections: Counter::default(),
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
            page_connections_refused: SharedCounter::default(),
            tls: TlsMetrics::default(),
            answers: Arc::default(),
            records: CallLogMetrics::default(),
            fleet: Arc::default(),
            events_coalescing: AtomicU64::new(0),
            methods,
            code_names,
        }
    }

    /// The blocks of all workers.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerMetrics> {
        self.workers.iter().map(|block| &**block)
    }

    /// The block of one worker.
    pub fn worker(&self, worker: usize) -> &WorkerMetrics {
        &self.workers[worker]
    }
}
