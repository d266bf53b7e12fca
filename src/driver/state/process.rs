//! What the services of all workers share, and the boxes for the mail between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::call_log::Observer;
use crate::driver::state::fleet::Fleet;
use crate::driver::state::health::Health;
use crate::driver::state::identity::Identities;
use crate::driver::state::messages::WorkerMessage;
use crate::driver::state::namespace::NamespacePolicy;
use crate::driver::state::read_cache::{ReadCache, ReadOptions};
use crate::driver::state::store_revision::StoreRevision;
use crate::limits;
use crate::metrics::AnswerMetrics;
use crate::state_machine::watch::hub::IdentityId;

/// What flags say of watches.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Bytes of events kept for watches that are slow or late, over all workers.
    pub log_bytes: usize,
    /// Watches within these prefixes share nothing (W13).
    pub bypass: Vec<Bytes>,
    /// The size from which an answer is cut for a client that asked for parts, until etcd shows that
    /// its own is smaller.
    pub part_bytes: usize,
    /// Time between two notices of one watch's progress (W7).
    pub progress_notify: Duration,
}

/// One for the process.
#[derive(Debug)]
pub struct ProcessState {
    /// How far the store is known to have come.
    pub(in crate::driver) known: StoreRevision,
    /// Whose tokens are whose.
    pub(in crate::driver) identities: Identities,
    /// Kept answers.
    pub(in crate::driver) answers: ReadCache,
    /// What all keys of clients begin with at etcd, if anything.
    gate: Option<NamespacePolicy>,
    /// Who is told of calls, if anybody.
    observer: Option<Arc<Observer>>,
    /// Proxies side by side.
    pub(in crate::driver) fleet: Fleet,
    /// How well etcd is.
    pub(in crate::driver) health: Arc<Health>,
    /// The size from which etcd cuts what it tells, as far as it has shown.
    part_bytes: AtomicUsize,
    /// When it was last found that no endpoint has a leader, if none was found since.
    leaderless: Mutex<Option<Instant>>,
    options: WatchOptions,
    boxes: Vec<Mailbox>,
    began: Instant,
}

/// Where one worker gets its mail. Unbounded, and bounded all the same: what asks is bounded by open
/// watches, and what tells of events by [`ProcessState::backlog`], at which reading from etcd stops.
#[derive(Debug)]
struct Mailbox {
    sender: UnboundedSender<WorkerMessage>,
    receiver: Mutex<Option<UnboundedReceiver<WorkerMessage>>>,
    /// Bytes of events on their way.
    backlog: AtomicUsize,
}

impl ProcessState {
    /// For so many workers.
    pub fn new(
        workers: usize,
        options: WatchOptions,
        reads: ReadOptions,
        answers: Arc<AnswerMetrics>,
        gate: Option<NamespacePolicy>,
        observer: Option<Arc<Observer>>,
        fleet: Fleet,
    ) -> ProcessState {
        let mailbox = |_| {
            let (sender, receiver) = unbounded_channel();
            Mailbox {
                sender,
                receiver: Mutex::new(Some(receiver)),
                backlog: AtomicUsize::new(0),
            }
        };
        ProcessState {
            known: StoreRevision::default(),
            identities: Identities::default(),
            answers: ReadCache::new(reads, answers),
            gate,
            observer,
            fleet,
            health: Arc::default(),
            part_bytes: AtomicUsize::new(options.part_bytes),
            leaderless: Mutex::new(None),
            options,
            boxes: (0..workers).map(mailbox).collect(),
            began: Instant::now(),
        }
    }

    /// How long the process has been there.
    pub(in crate::driver) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// The namespace, if there is one.
    pub(in crate::driver) fn gate(&self) -> Option<&NamespacePolicy> {
        self.gate.as_ref()
    }

    /// Who is told of calls, if anybody.
    pub(in crate::driver) fn observer(&self) -> Option<&Observer> {
        self.observer.as_deref()
    }

    /// How many workers there are.
    pub(in crate::driver) fn workers(&self) -> usize {
        self.boxes.len()
    }

    /// What flags say of watches.
    pub(in crate::driver) fn options(&self) -> &WatchOptions {
        &self.options
    }

    /// The size from which etcd cuts what it tells.
    pub(in crate::driver) fn part_bytes(&self) -> usize {
        self.part_bytes.load(Ordering::Relaxed)
    }

    /// etcd has cut what would have been of this size: its bound is not above it.
    pub(in crate::driver) fn saw_cut(&self, bytes: usize) {
        self.part_bytes.fetch_min(bytes, Ordering::Relaxed);
    }

    /// No endpoint has a leader, or one was found that has. Said at the beginning and the end of
    /// watch streams to etcd, which are few.
    pub(in crate::driver) fn set_leaderless(&self, leaderless: bool) {
        *self.leaderless.lock() = leaderless.then(Instant::now);
    }

    /// Whether no endpoint has a leader as far as is known. Who finds that out looks again within
    /// [`limits::LEADERLESS_TIME`]; when nobody looks any more, nothing is known.
    pub(in crate::driver) fn is_leaderless(&self) -> bool {
        let since = *self.leaderless.lock();
        since.is_some_and(|since| since.elapsed() < 2 * limits::LEADERLESS_TIME)
    }

    /// The worker that owns the shared line of an identity.
    pub(in crate::driver) fn owner(&self, identity: IdentityId) -> u32 {
        // Identities are numbered as they come, so each worker gets its part. Below MAX_WORKERS.
        (identity.0 % self.boxes.len() as u64) as u32
    }

    /// Sends mail to one worker.
    pub(in crate::driver) fn post(&self, worker: u32, mail: WorkerMessage) {
        let Some(to) = self.boxes.get(worker as usize) else {
            return;
        };
        to.backlog.fetch_add(mail.bytes(), Ordering::Relaxed);
        // A worker that is gone has nobody left to tell.
        let _ = to.sender.send(mail);
    }

    /// Sends mail to all workers.
    pub(in crate::driver) fn post_all(&self, mail: impl Fn() -> WorkerMessage) {
        for worker in 0..self.boxes.len() {
            self.post(worker as u32, mail());
        }
    }

    /// A worker's mail, for it to take once.
    pub(in crate::driver) fn receiver(
        &self,
        worker: u32,
    ) -> Option<UnboundedReceiver<WorkerMessage>> {
        self.boxes.get(worker as usize)?.receiver.lock().take()
    }

    /// A worker has taken this out of its mail.
    pub(in crate::driver) fn received(&self, worker: u32, mail: &WorkerMessage) {
        if let Some(to) = self.boxes.get(worker as usize) {
            to.backlog.fetch_sub(mail.bytes(), Ordering::Relaxed);
        }
    }

    /// Whether some worker has more mail than it should have waiting: who brings more is to wait.
    pub(in crate::driver) fn is_backed_up(&self) -> bool {
        let backlog = |to: &Mailbox| to.backlog.load(Ordering::Relaxed);
        self.boxes.iter().any(|to| backlog(to) > limits::MAIL_BYTES)
    }
}
