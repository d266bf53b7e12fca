//! Drivers: they serve client calls and carry out what the state machines decide.
//!
//! `router` passes each call to one driver: `unary` for unary reads, `watch`, `lease` and
//! `health` for streams that share upstream work, `namespaced` for calls that a namespace must
//! inspect, and `relay` for the rest. `background` starts the tasks that a worker runs beside
//! calls. Drivers use no sockets or listeners: those belong to `server` and `net`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::call_log::finished_call::ClientInfo;
use crate::driver::lease::state::Leases;
use crate::driver::reads::Reads;
use crate::driver::state::connection::ClientConnection;
use crate::driver::state::fleet::FleetTasks;
use crate::driver::state::process::ProcessState;
use crate::driver::watch::state::Watches;
use crate::metrics::{Metrics, WorkerMetrics};
use crate::net::drain::Drain;
use crate::net::timers::Timers;
use crate::state_machine::retry::RetryVerdict;
use crate::upstream::pool::Pool;

pub mod background;
pub mod call;
mod etcd;
pub mod fleet;
pub mod health;
pub mod lease;
mod namespaced;
pub mod reads;
mod relay;
pub mod router;
pub mod state;
pub mod status;
mod unary;
pub mod watch;

/// Largest gRPC messages that the proxy forwards, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MaxBytes {
    /// Largest request towards etcd: `--max-send-bytes`.
    pub send: u64,
    /// Largest response from etcd: `--max-recv-bytes`.
    pub recv: u64,
}

/// State of one worker that every call on it uses.
///
/// A worker is one thread, so the counts are plain cells. Shared state of all workers is in
/// `process`.
pub struct WorkerContext {
    /// Connections of this worker to the etcd endpoints.
    pub pool: Rc<Pool>,
    /// Signals that the process is shutting down (S2).
    pub drain: Drain,
    /// Timers of call deadlines and stalled readers.
    pub timers: Timers,
    /// Largest messages in each direction, in bytes (P6).
    pub max: MaxBytes,
    /// Calls open on this worker, at most `limits::MAX_CALLS_PER_WORKER`.
    pub open_calls: Cell<usize>,
    /// Bytes of large, incomplete request messages on this worker (S1).
    pub large_requests: Rc<Cell<usize>>,
    /// Bytes of large, incomplete responses on this worker that must be complete before their keys
    /// are translated (S1).
    pub large_responses: Rc<Cell<usize>>,
    /// Bytes that this worker buffers to replay calls (E2, S1).
    pub replay_bytes: Cell<usize>,
    /// State that all workers share.
    pub process: Arc<ProcessState>,
    /// Metrics of the process. [`WorkerContext::counters`] returns the part of this worker.
    pub metrics: Arc<Metrics>,
    /// Watch hub and trunks of this worker.
    pub watches: Watches,
    /// Lease hubs and keepalive streams of this worker.
    pub leases: Leases,
    /// Coalesced reads and permissions of this worker.
    pub reads: Reads,
    /// State of the tasks that register this proxy and watch the other proxies.
    fleet: FleetTasks,
    /// Number of the latest client connection; the first one has number 1.
    last_connection: Cell<u64>,
    /// Index of this worker, from 0.
    pub worker: usize,
}

impl WorkerContext {
    /// Creates the context of one worker, with no call open.
    pub fn new(
        pool: Rc<Pool>,
        metrics: Arc<Metrics>,
        process: Arc<ProcessState>,
        worker: usize,
        max: MaxBytes,
    ) -> WorkerContext {
        WorkerContext {
            pool,
            drain: Drain::default(),
            timers: Timers::new(),
            max,
            open_calls: Cell::new(0),
            large_requests: Rc::default(),
            large_responses: Rc::default(),
            replay_bytes: Cell::new(0),
            watches: Watches::new(worker, process.clone()),
            leases: Leases::default(),
            reads: Reads::default(),
            fleet: FleetTasks::default(),
            last_connection: Cell::new(0),
            process,
            metrics,
            worker,
        }
    }

    /// Returns the index of this worker in the type that messages use.
    fn worker_number(&self) -> u32 {
        // Bounded by MAX_WORKERS.
        self.worker as u32
    }

    /// Registers a new client connection. `client_info` identifies the client in the call log.
    pub fn new_connection(&self, client_info: Option<Arc<ClientInfo>>) -> Rc<ClientConnection> {
        self.last_connection.set(self.last_connection.get() + 1);
        Rc::new(ClientConnection::new(
            self.last_connection.get(),
            client_info,
        ))
    }

    /// Returns whether the call log needs [`ClientInfo`] of each connection.
    pub fn needs_client_info(&self) -> bool {
        self.process.observer().is_some()
    }

    /// Counts the verdict on a failed attempt and returns it.
    fn count_verdict(&self, verdict: RetryVerdict) -> RetryVerdict {
        let failed = &self.counters().failed_attempts;
        match verdict {
            RetryVerdict::Again => failed.retried.inc(),
            RetryVerdict::AfterPause => failed.retried_after_backoff.inc(),
            RetryVerdict::Return => failed.returned.inc(),
        }
        verdict
    }

    /// Returns the counters of this worker.
    pub fn counters(&self) -> &WorkerMetrics {
        self.metrics.worker(self.worker)
    }
}
