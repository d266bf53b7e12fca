//! What the services of all workers share, and the boxes for the mail between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::limits;
use crate::machine::watch::hub::Identity;
use crate::metrics::AnswerMetrics;
use crate::service::fleet::state::Fleet;
use crate::service::gate::Gate;
use crate::service::health::state::Health;
use crate::service::identity::Identities;
use crate::service::known::Known;
use crate::service::mail::Mail;
use crate::service::reads::answers::{Answers, ReadOptions};
use crate::service::record::Observer;

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
pub struct Shared {
    /// How far the store is known to have come.
    pub(super) known: Known,
    /// Whose tokens are whose.
    pub(super) identities: Identities,
    /// Kept answers.
    pub(super) answers: Answers,
    /// What all keys of clients begin with at etcd, if anything.
    gate: Option<Gate>,
    /// Who is told of calls, if anybody.
    observer: Option<Arc<Observer>>,
    /// Proxies side by side.
    pub(super) fleet: Fleet,
    /// How well etcd is.
    pub(super) health: Arc<Health>,
    /// The size from which etcd cuts what it tells, as far as it has shown.
    part_bytes: AtomicUsize,
    /// When it was last found that no endpoint has a leader, if none was found since.
    leaderless: Mutex<Option<Instant>>,
    options: WatchOptions,
    boxes: Vec<Mailbox>,
    began: Instant,
}

/// Where one worker gets its mail. Unbounded, and bounded all the same: what asks is bounded by open
/// watches, and what tells of events by [`Shared::backlog`], at which reading from etcd stops.
#[derive(Debug)]
struct Mailbox {
    sender: UnboundedSender<Mail>,
    receiver: Mutex<Option<UnboundedReceiver<Mail>>>,
    /// Bytes of events on their way.
    backlog: AtomicUsize,
}

impl Shared {
    /// For so many workers.
    pub fn new(
        workers: usize,
        options: WatchOptions,
        reads: ReadOptions,
        answers: Arc<AnswerMetrics>,
        gate: Option<Gate>,
        observer: Option<Arc<Observer>>,
        fleet: Fleet,
    ) -> Shared {
        let mailbox = |_| {
            let (sender, receiver) = unbounded_channel();
            Mailbox {
                sender,
                receiver: Mutex::new(Some(receiver)),
                backlog: AtomicUsize::new(0),
            }
        };
        Shared {
            known: Known::default(),
            identities: Identities::default(),
            answers: Answers::new(reads, answers),
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
    pub(super) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// The namespace, if there is one.
    pub(super) fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Who is told of calls, if anybody.
    pub(super) fn observer(&self) -> Option<&Observer> {
        self.observer.as_deref()
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.boxes.len()
    }

    /// What flags say of watches.
    pub(super) fn options(&self) -> &WatchOptions {
        &self.options
    }

    /// The size from which etcd cuts what it tells.
    pub(super) fn part_bytes(&self) -> usize {
        self.part_bytes.load(Ordering::Relaxed)
    }

    /// etcd has cut what would have been of this size: its bound is not above it.
    pub(super) fn saw_cut(&self, bytes: usize) {
        self.part_bytes.fetch_min(bytes, Ordering::Relaxed);
    }

    /// No endpoint has a leader, or one was found that has. Said at the beginning and the end of
    /// watch streams to etcd, which are few.
    pub(super) fn set_leaderless(&self, leaderless: bool) {
        *self.leaderless.lock() = leaderless.then(Instant::now);
    }

    /// Whether no endpoint has a leader as far as is known. Who finds that out looks again within
    /// [`limits::LEADERLESS_TIME`]; when nobody looks any more, nothing is known.
    pub(super) fn is_leaderless(&self) -> bool {
        let since = *self.leaderless.lock();
        since.is_some_and(|since| since.elapsed() < 2 * limits::LEADERLESS_TIME)
    }

    /// The worker that owns the shared line of an identity.
    pub(super) fn owner(&self, identity: Identity) -> u32 {
        // Identities are numbered as they come, so each worker gets its part. Below MAX_WORKERS.
        (identity.0 % self.boxes.len() as u64) as u32
    }

    /// Sends mail to one worker.
    pub(super) fn post(&self, worker: u32, mail: Mail) {
        let Some(to) = self.boxes.get(worker as usize) else {
            return;
        };
        to.backlog.fetch_add(mail.bytes(), Ordering::Relaxed);
        // A worker that is gone has nobody left to tell.
        let _ = to.sender.send(mail);
    }

    /// Sends mail to all workers.
    pub(super) fn post_all(&self, mail: impl Fn() -> Mail) {
        for worker in 0..self.boxes.len() {
            self.post(worker as u32, mail());
        }
    }

    /// A worker's mail, for it to take once.
    pub(super) fn receiver(&self, worker: u32) -> Option<UnboundedReceiver<Mail>> {
        self.boxes.get(worker as usize)?.receiver.lock().take()
    }

    /// A worker has taken this out of its mail.
    pub(super) fn received(&self, worker: u32, mail: &Mail) {
        if let Some(to) = self.boxes.get(worker as usize) {
            to.backlog.fetch_sub(mail.bytes(), Ordering::Relaxed);
        }
    }

    /// Whether some worker has more mail than it should have waiting: who brings more is to wait.
    pub(super) fn is_backed_up(&self) -> bool {
        let backlog = |to: &Mailbox| to.backlog.load(Ordering::Relaxed);
        self.boxes.iter().any(|to| backlog(to) > limits::MAIL_BYTES)
    }
}
