//! Process state: values that all workers share, and the inboxes of the workers.

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
use crate::metrics::CacheMetrics;
use crate::state_machine::watch::hub::IdentityId;

/// Watch settings from flags.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Bytes of events buffered for slow or new client watchers, over all workers.
    pub log_bytes: usize,
    /// Key prefixes for which watches are not shared (W13).
    pub bypass: Vec<Bytes>,
    /// Size in bytes from which a response is fragmented, for clients that accept fragments. If
    /// etcd proves to use a smaller size, that one applies.
    pub fragment_bytes: usize,
    /// Time between two progress notifications of a watch (W7).
    pub progress_notify: Duration,
}

/// State of the process, shared by all workers.
#[derive(Debug)]
pub struct ProcessState {
    /// Highest known revision of the store.
    pub(in crate::driver) store_revision: StoreRevision,
    /// Identities in use, and the users of tokens.
    pub(in crate::driver) identities: Identities,
    /// Cached responses.
    pub(in crate::driver) read_cache: ReadCache,
    /// Namespace of all clients, if there is one.
    namespace_policy: Option<NamespacePolicy>,
    /// Call log, if calls are logged or traced.
    observer: Option<Arc<Observer>>,
    /// State of the proxy fleet.
    pub(in crate::driver) fleet: Fleet,
    /// Health of the proxy.
    pub(in crate::driver) health: Arc<Health>,
    /// Size in bytes from which etcd fragments responses, as far as known.
    fragment_bytes: AtomicUsize,
    /// Time at which no endpoint had a leader, unless a leader was found since.
    leaderless: Mutex<Option<Instant>>,
    watch_options: WatchOptions,
    inboxes: Vec<Inbox>,
    started: Instant,
}

/// Inbox of one worker.
///
/// The channel is unbounded, but its content is bounded: requests by the number of open watches,
/// and events by the backlog, at which the proxy stops reading from etcd
/// ([`ProcessState::is_backed_up`]).
#[derive(Debug)]
struct Inbox {
    sender: UnboundedSender<WorkerMessage>,
    receiver: Mutex<Option<UnboundedReceiver<WorkerMessage>>>,
    /// Bytes of events in the channel.
    backlog: AtomicUsize,
}

impl ProcessState {
    /// Creates the state for a number of workers.
    pub fn new(
        workers: usize,
        watch_options: WatchOptions,
        reads: ReadOptions,
        cache_metrics: Arc<CacheMetrics>,
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

    /// Returns the time since the process started.
    pub(in crate::driver) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the namespace policy, if there is a namespace.
    pub(in crate::driver) fn namespace_policy(&self) -> Option<&NamespacePolicy> {
        self.namespace_policy.as_ref()
    }

    /// Returns the call log, if calls are logged or traced.
    pub(in crate::driver) fn observer(&self) -> Option<&Observer> {
        self.observer.as_deref()
    }

    /// Returns the number of workers.
    pub(in crate::driver) fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// Returns the watch settings.
    pub(in crate::driver) fn watch_options(&self) -> &WatchOptions {
        &self.watch_options
    }

    /// Returns the size in bytes from which etcd fragments responses.
    pub(in crate::driver) fn fragment_bytes(&self) -> usize {
        self.fragment_bytes.load(Ordering::Relaxed)
    }

    /// Records that etcd fragmented a response of this size, so its limit is not higher.
    pub(in crate::driver) fn observe_fragment(&self, bytes: usize) {
        self.fragment_bytes.fetch_min(bytes, Ordering::Relaxed);
    }

    /// Records whether an endpoint has a leader. Called when upstream watch streams start and end,
    /// which is rare.
    pub(in crate::driver) fn set_leaderless(&self, leaderless: bool) {
        *self.leaderless.lock() = leaderless.then(Instant::now);
    }

    /// Returns whether no endpoint has a leader, as far as known. Callers of
    /// [`ProcessState::set_leaderless`] repeat the report within [`limits::LEADERLESS_TIME`]. A
    /// report expires after twice that time.
    pub(in crate::driver) fn is_leaderless(&self) -> bool {
        let since = *self.leaderless.lock();
        since.is_some_and(|since| since.elapsed() < 2 * limits::LEADERLESS_TIME)
    }

    /// Returns the worker that owns the shared upstream link of an identity.
    pub(in crate::driver) fn owner(&self, identity: IdentityId) -> u32 {
        // Identities are numbered in sequence, so each worker owns an equal part. The result is
        // below MAX_WORKERS.
        (identity.0 % self.inboxes.len() as u64) as u32
    }

    /// Sends a message to one worker.
    pub(in crate::driver) fn send(&self, worker: u32, message: WorkerMessage) {
        let Some(to) = self.inboxes.get(worker as usize) else {
            return;
        };
        to.backlog.fetch_add(message.bytes(), Ordering::Relaxed);
        // An error means that the worker has ended.
        let _ = to.sender.send(message);
    }

    /// Sends a message to every worker.
    pub(in crate::driver) fn broadcast(&self, message: impl Fn() -> WorkerMessage) {
        for worker in 0..self.inboxes.len() {
            self.send(worker as u32, message());
        }
    }

    /// Returns the receiver of a worker's inbox, once.
    pub(in crate::driver) fn take_inbox(
        &self,
        worker: u32,
    ) -> Option<UnboundedReceiver<WorkerMessage>> {
        self.inboxes.get(worker as usize)?.receiver.lock().take()
    }

    /// Subtracts a received message from the backlog.
    pub(in crate::driver) fn message_taken(&self, worker: u32, message: &WorkerMessage) {
        if let Some(to) = self.inboxes.get(worker as usize) {
            to.backlog.fetch_sub(message.bytes(), Ordering::Relaxed);
        }
    }

    /// Returns whether the backlog of any worker exceeds [`limits::INBOX_EVENT_BYTES`]. The readers
    /// of upstream streams then pause.
    pub(in crate::driver) fn is_backed_up(&self) -> bool {
        let backlog = |to: &Inbox| to.backlog.load(Ordering::Relaxed);
        self.inboxes
            .iter()
            .any(|to| backlog(to) > limits::INBOX_EVENT_BYTES)
    }
}
