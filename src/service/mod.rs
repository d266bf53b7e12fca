//! What is done with each call: one driver per way of serving it. Knows nothing of sockets.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::limits;
use crate::metrics::{Metrics, WorkerMetrics};
use crate::net::drain::Drain;
use crate::net::payload::{Board, Total};
use crate::net::timers::Timers;
use crate::service::lease::state::Leases;
use crate::service::shared::Shared;
use crate::service::watch::state::Watches;
use crate::upstream::pool::Pool;

mod alarm;
mod ask;
mod bounds;
pub mod call;
mod client;
mod ending;
mod fetch;
pub mod health;
mod identity;
mod kept;
mod known;
pub mod lease;
mod lesson;
mod mail;
mod outflow;
mod pass;
mod read;
mod relay;
mod replay;
mod reply;
mod requests;
mod road;
pub mod route;
pub mod shared;
pub mod status;
pub mod tasks;
mod upload;
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
pub struct Ctx {
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
    /// Bytes kept for sending calls again, on this worker.
    pub replay_bytes: Cell<usize>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// Watches of this worker.
    pub watches: Watches,
    /// Leases of this worker.
    pub leases: Leases,
    /// The number of the last client connection.
    peers: Cell<u64>,
    /// This worker's number.
    pub worker: usize,
}

impl Ctx {
    /// For one worker, with nothing open.
    pub fn new(
        pool: Rc<Pool>,
        metrics: Arc<Metrics>,
        shared: Arc<Shared>,
        worker: usize,
        max: MaxBytes,
    ) -> Ctx {
        Ctx {
            pool,
            drain: Drain::default(),
            timers: Timers::new(),
            max,
            open_calls: Cell::new(0),
            replay_bytes: Cell::new(0),
            watches: Watches::new(worker, shared.clone()),
            leases: Leases::default(),
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

    /// This worker's block of counters.
    pub fn count(&self) -> &WorkerMetrics {
        self.metrics.worker(self.worker)
    }
}

/// What every call of one client connection shares.
#[derive(Debug)]
pub struct Peer {
    /// Its number on this worker.
    number: u64,
    /// Bytes that wait here for it to read on.
    stalled_bytes: Cell<usize>,
    /// The same for its watch streams, of which it mostly has none.
    watched: OnceCell<Rc<Total>>,
    /// The same for its streams of heartbeats.
    leased: OnceCell<Rc<Total>>,
}

impl Peer {
    /// A connection without a call.
    pub fn new(ctx: &Ctx) -> Peer {
        ctx.peers.set(ctx.peers.get() + 1);
        Peer {
            number: ctx.peers.get(),
            stalled_bytes: Cell::new(0),
            watched: OnceCell::new(),
            leased: OnceCell::new(),
        }
    }

    fn watched(&self, board: &Rc<Board>) -> &Rc<Total> {
        total(&self.watched, board)
    }

    fn leased(&self, board: &Rc<Board>) -> &Rc<Total> {
        total(&self.leased, board)
    }
}

fn total<'a>(of: &'a OnceCell<Rc<Total>>, board: &Rc<Board>) -> &'a Rc<Total> {
    of.get_or_init(|| Total::new(limits::MAX_STALLED_BYTES / 2, board.clone()))
}
