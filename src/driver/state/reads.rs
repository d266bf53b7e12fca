//! Read state of one worker: reads in flight, reads that wait to share the next one, and read
//! permissions of tokens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::driver::state::identity::Credential;
use crate::driver::state::permission_cache::PermissionCache;
use crate::net::worker_load::WorkerLoad;
use crate::state_machine::reads::coalescing::Coalescing;
use crate::wire::status::Status;

/// Key of coalescing: reads with equal keys may share one upstream read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::driver) struct CoalescingKey {
    /// Number of the identity; 0 for calls without a token.
    pub(in crate::driver) identity: u64,
    /// The clients require a leader.
    pub(in crate::driver) requires_leader: bool,
    /// The read is serializable: any member may answer.
    pub(in crate::driver) serializable: bool,
    /// Request message, without its gRPC frame.
    pub(in crate::driver) message: Bytes,
}

/// Read state of one worker.
#[derive(Default)]
pub struct Reads {
    pub(in crate::driver) coalescing: RefCell<Coalescing<CoalescingKey, Rc<SharedRead>>>,
    pub(in crate::driver) load: WorkerLoad,
    pub(in crate::driver) permissions: RefCell<PermissionCache>,
    /// Audits in progress.
    pub(in crate::driver) audits: Cell<usize>,
    /// Number of cache flushes before the permissions; permissions do not survive a flush.
    pub(in crate::driver) permissions_flush_count: Cell<u64>,
}

/// Clients that wait for the in-flight read to return, and share the next one.
pub(in crate::driver) struct SharedRead {
    /// Token of the read: that of the first client.
    pub(in crate::driver) credential: Option<Credential>,
    /// Number of clients that wait.
    pub(in crate::driver) waiting: Cell<usize>,
    pub(in crate::driver) outcome: RefCell<Option<SharedOutcome>>,
    pub(in crate::driver) wakers: RefCell<Vec<Waker>>,
    /// Waker of the task that sends the read or waits for more clients.
    pub(in crate::driver) task: Cell<Option<Waker>>,
    /// Number of waiting clients at which the task stops waiting for more.
    pub(in crate::driver) wanted: Cell<usize>,
    /// A client has found the response of the previous read unusable, so this one goes to etcd.
    pub(in crate::driver) must_be_sent: Cell<bool>,
}

/// Outcome of a shared read.
#[derive(Debug, Clone)]
pub(in crate::driver) enum SharedOutcome {
    /// One client is left: it sends its own read, and later clients wait for that read.
    SendAsFirst,
    /// Each client sends its own read.
    SendAlone,
    /// The response may be in the cache now.
    Lookup,
    /// The response for all clients.
    Response(Rc<Result<SharedResponse, Status>>),
}

/// A complete response that several clients receive.
#[derive(Debug, Clone)]
pub(in crate::driver) struct SharedResponse {
    pub(in crate::driver) status: StatusCode,
    pub(in crate::driver) headers: HeaderMap,
    pub(in crate::driver) chunks: Vec<Bytes>,
    pub(in crate::driver) trailers: Option<HeaderMap>,
}

impl SharedRead {
    pub(in crate::driver) fn new(credential: Option<Credential>) -> Rc<SharedRead> {
        Rc::new(SharedRead {
            credential,
            waiting: Cell::new(0),
            outcome: RefCell::new(None),
            wakers: RefCell::default(),
            task: Cell::new(None),
            wanted: Cell::new(usize::MAX),
            must_be_sent: Cell::new(false),
        })
    }

    /// Wakes the task of the read.
    pub(in crate::driver) fn wake_task(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Sets the outcome and wakes all clients.
    pub(in crate::driver) fn finish(&self, outcome: SharedOutcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.wakers.borrow_mut().drain(..).for_each(Waker::wake);
    }
}
