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
    pub fragment_bytes: usize,
    /// Time between two notices of one watch's progress (W7).
    pub progress_notify: Duration,
}

/// One for the process.
#[derive(Debug)]
pub struct ProcessState {
    /// How far the store is known to have come.
    pub(in crate::driver) store_revision: StoreRevision,
    /// Whose tokens are whose.
    pub(in crate::driver) identities: Identities,
    /// Kept answers.
    pub(in crate::driver) read_cache: ReadCache,
    /// What all keys of clients begin with at etcd, if anything.
    namespace_policy: Option<NamespacePolicy>,
    /// Who is told of calls, if anybody.
    observer: Option<Arc<Observer>>,
    /// Proxies side by side.
    pub(in crate::driver) fleet: Fleet,
    /// How well etcd is.
    pub(in crate::driver) health: Arc<Health>,
    /// The size from which etcd cuts what it tells, as far as it has shown.
    fragment_bytes: AtomicUsize,
    /// When it was last found that no endpoint has a leader, if none was found since.
    leaderless: Mutex<Option<Instant>>,
    watch_options: WatchOptions,
    inboxes: Vec<Inbox>,
    started: Instant,
}

/// Where one worker gets its mail. Unbounded, and bounded all the same: what asks is bounded by open
/// watches, and what tells of events by [`ProcessState::backlog`], at which reading from etcd stops.
#[derive(Debug)]
struct Inbox {
    sender: UnboundedSender<WorkerMessage>,
    receiver: Mutex<Option<UnboundedReceiver<WorkerMessage>>>,
    /// Bytes of events on their way.
    backlog: AtomicUsize,
}

impl ProcessState {
    /// For so many workers.
    pub fn new(
        workers: usize,
        watch_options: WatchOptions,
        reads: ReadOptions,
        cache_metrics: Arc<AnswerMetrics>,
        namespace_policy: Option<NamespacePolicy>,
        observer: Option<Arc<Observer>>,
        fleet: Fleet,
    ) -> ProcessState {
        let inbox = |_| {
            let (sender, receiver) = unbounded_channel();
            Inbox {
                sender,
                receiver: Mutex::new(Some(receiver)),
                backlog: AtomicUsize::new(0),
            }
        };
        ProcessState {
            store_revision: StoreRevision::default(),
            identities: Identities::default(),
            read_cache: ReadCache::new(reads, cache_metrics),
            namespace_policy,
            observer,
            fleet,
            health: Arc::default(),
            fragment_bytes: AtomicUsize::new(watch_options.fragment_bytes),
            leaderless: Mutex::new(None),
            watch_options,
            inboxes: (0..workers).map(inbox).collect(),
            started: Instant::now(),
        }
    }

    /// How long the process has been there.
    pub(in crate::driver) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The namespace, if there is one.
    pub(in crate::driver) fn namespace_policy(&self) -> Option<&NamespacePolicy> {
        self.namespace_policy.as_ref()
    }

    /// Who is told of calls, if anybody.
    pub(in crate::driver) fn observer(&self) -> Option<&Observer> {
        self.observer.as_deref()
    }

    /// How many workers there are.
    pub(in crate::driver) fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// What flags say of watches.
    pub(in crate::driver) fn watch_options(&self) -> &WatchOptions {
        &self.watch_options
    }

    /// The size from which etcd cuts what it tells.
    pub(in crate::driver) fn fragment_bytes(&self) -> usize {
        self.fragment_bytes.load(Ordering::Relaxed)
    }

    /// etcd has cut what would have been of this size: its bound is not above it.
    pub(in crate::driver) fn observe_fragment(&self, bytes: usize) {
        self.fragment_bytes.fetch_min(bytes, Ordering::Relaxed);
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
        (identity.0 % self.inboxes.len() as u64) as u32
    }

    /// Sends mail to one worker.
    pub(in crate::driver) fn send(&self, worker: u32, message: WorkerMessage) {
        let Some(to) = self.inboxes.get(worker as usize) else {
            return;
        };
        to.backlog.fetch_add(message.bytes(), Ordering::Relaxed);
        // A worker that is gone has nobody left to tell.
        let _ = to.sender.send(message);
    }

    /// Sends mail to all workers.
    pub(in crate::driver) fn broadcast(&self, message: impl Fn() -> WorkerMessage) {
        for worker in 0..self.inboxes.len() {
            self.send(worker as u32, message());
        }
    }

    /// A worker's mail, for it to take once.
    pub(in crate::driver) fn take_inbox(
        &self,
        worker: u32,
    ) -> Option<UnboundedReceiver<WorkerMessage>> {
        self.inboxes.get(worker as usize)?.receiver.lock().take()
    }

    /// A worker has taken this out of its mail.
    pub(in crate::driver) fn message_taken(&self, worker: u32, message: &WorkerMessage) {
        if let Some(to) = self.inboxes.get(worker as usize) {
            to.backlog.fetch_sub(message.bytes(), Ordering::Relaxed);
        }
    }

    /// Whether some worker has more mail than it should have waiting: who brings more is to wait.
    pub(in crate::driver) fn is_backed_up(&self) -> bool {
        let backlog = |to: &Inbox| to.backlog.load(Ordering::Relaxed);
        self.inboxes
            .iter()
            .any(|to| backlog(to) > limits::INBOX_EVENT_BYTES)
    }
}
