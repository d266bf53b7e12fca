//! What one worker keeps of reads: which are on their way, who waits for the next, and which tokens etcd
//! took for which range.

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

/// What is asked, and by whom: what is the same may share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::driver) struct Key {
    /// The identity's number; 0 is nobody's.
    pub(in crate::driver) identity: u64,
    /// It wants to be told when there is no leader.
    pub(in crate::driver) leader: bool,
    /// Any member may answer.
    pub(in crate::driver) serializable: bool,
    /// The request, without its frame.
    pub(in crate::driver) message: Bytes,
}

/// One worker's part.
#[derive(Default)]
pub struct Reads {
    pub(in crate::driver) sharing: RefCell<Coalescing<Key, Rc<Round>>>,
    pub(in crate::driver) load: WorkerLoad,
    pub(in crate::driver) grants: RefCell<PermissionCache>,
    /// Answers that are being held against etcd.
    pub(in crate::driver) auditing: Cell<usize>,
    /// Which drop of all answers the grants come after.
    pub(in crate::driver) granted_after: Cell<u64>,
}

/// Those who wait for a read to come back, and share the next.
pub(in crate::driver) struct Round {
    /// Whose token it goes with: that of the first.
    pub(in crate::driver) credential: Option<Credential>,
    /// Those who still wait.
    pub(in crate::driver) live: Cell<usize>,
    pub(in crate::driver) outcome: RefCell<Option<Outcome>>,
    pub(in crate::driver) wakers: RefCell<Vec<Waker>>,
    /// Of the task that reads for them, or waits for more of them.
    pub(in crate::driver) reader: Cell<Option<Waker>>,
    /// How many who wait are enough, while the read waits for more of them.
    pub(in crate::driver) enough: Cell<usize>,
}

/// What becomes of a round.
#[derive(Debug, Clone)]
pub(in crate::driver) enum Outcome {
    /// There is one left: he goes himself, and others wait for him.
    Go,
    /// Each goes for himself.
    Alone,
    /// What was asked may be among the kept answers now.
    Look,
    /// The answer of all.
    Answer(Rc<Result<Whole, Status>>),
}

/// An answer that several get.
#[derive(Debug, Clone)]
pub(in crate::driver) struct Whole {
    pub(in crate::driver) status: StatusCode,
    pub(in crate::driver) headers: HeaderMap,
    pub(in crate::driver) chunks: Vec<Bytes>,
    pub(in crate::driver) trailers: Option<HeaderMap>,
}

impl Round {
    pub(in crate::driver) fn new(credential: Option<Credential>) -> Rc<Round> {
        Rc::new(Round {
            credential,
            live: Cell::new(0),
            outcome: RefCell::new(None),
            wakers: RefCell::default(),
            reader: Cell::new(None),
            enough: Cell::new(usize::MAX),
        })
    }

    /// The task that reads for them looks again.
    pub(in crate::driver) fn wake_reader(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Tells everybody.
    pub(in crate::driver) fn tell(&self, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.wakers.borrow_mut().drain(..).for_each(Waker::wake);
    }
}
