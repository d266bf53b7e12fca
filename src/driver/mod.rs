//! What is done with each call: one driver per way of serving it. Knows nothing of sockets.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::call_log::finished_call::ClientInfo;
use crate::driver::lease::state::Leases;
use crate::driver::reads::Reads;
use crate::driver::state::connection::ClientConnection;
use crate::driver::state::fleet::Tasks;
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

/// Largest messages, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MaxBytes {
    /// Towards etcd: `--max-send-bytes`.
    pub send: u64,
    /// From etcd: `--max-recv-bytes`.
    pub recv: u64,
}

/// What every call on one worker shares.
pub struct WorkerContext {
    /// Connections to etcd.
    pub pool: Rc<Pool>,
    /// The word that the process is to end.
    pub drain: Drain,
    /// Deadlines of calls.
    pub timers: Timers,
    /// Largest messages.
    pub max: MaxBytes,
    /// Calls open on this worker.
    pub open_calls: Cell<usize>,
    /// Bytes of large messages of streams that are not complete, on this worker.
    pub large_requests: Rc<Cell<usize>>,
    /// Bytes of answers that are not complete and have to be, to be translated, on this worker.
    pub large_answers: Rc<Cell<usize>>,
    /// Bytes kept for sending calls again, on this worker.
    pub replay_bytes: Cell<usize>,
    /// What all workers share.
    pub shared: Arc<ProcessState>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// Watches of this worker.
    pub watches: Watches,
    /// Leases of this worker.
    pub leases: Leases,
    /// Reads of this worker.
    pub reads: Reads,
    /// The tasks that register this proxy.
    fleet: Tasks,
    /// The number of the last client connection.
    peers: Cell<u64>,
    /// This worker's number.
    pub worker: usize,
}

impl WorkerContext {
    /// For one worker, with nothing open.
    pub fn new(
        pool: Rc<Pool>,
        metrics: Arc<Metrics>,
        shared: Arc<ProcessState>,
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
            large_answers: Rc::default(),
            replay_bytes: Cell::new(0),
            watches: Watches::new(worker, shared.clone()),
            leases: Leases::default(),
            reads: Reads::default(),
            fleet: Tasks::default(),
            peers: Cell::new(0),
            shared,
            metrics,
            worker,
        }
    }

    /// This worker's number, as mail has it.
    fn number(&self) -> u32 {
        // Bounded by MAX_WORKERS.
        self.worker as u32
    }

    /// A client connection begins.
    pub fn new_peer(&self, who: Option<Arc<ClientInfo>>) -> Rc<ClientConnection> {
        self.peers.set(self.peers.get() + 1);
        Rc::new(ClientConnection::new(self.peers.get(), who))
    }

    /// Whether it is to be known who a client is.
    pub fn asks_who(&self) -> bool {
        self.shared.observer().is_some()
    }

    /// The verdict on an attempt that failed, counted.
    fn judged(&self, verdict: RetryVerdict) -> RetryVerdict {
        let count = &self.count().failed_attempts;
        match verdict {
            RetryVerdict::Again => count.retried.inc(),
            RetryVerdict::AfterPause => count.retried_after_backoff.inc(),
            RetryVerdict::Give => count.returned.inc(),
        }
        verdict
    }

    /// This worker's block of counters.
    pub fn count(&self) -> &WorkerMetrics {
        self.metrics.worker(self.worker)
    }
}
