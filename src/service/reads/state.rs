//! What one worker keeps of reads: which are on their way, who waits for the next, and which tokens etcd
//! took for which range.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::machine::reads::sharing::Sharing;
use crate::net::load::Load;
use crate::service::grants::Grants;
use crate::service::identity::Credential;
use crate::wire::status::Status;

/// What is asked, and by whom: what is the same may share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The identity's number; 0 is nobody's.
    pub(super) identity: u64,
    /// It wants to be told when there is no leader.
    pub(super) leader: bool,
    /// Any member may answer.
    pub(super) serializable: bool,
    /// The request, without its frame.
    pub(super) message: Bytes,
}

/// One worker's part.
#[derive(Default)]
pub struct Reads {
    pub(super) sharing: RefCell<Sharing<Key, Rc<Round>>>,
    pub(super) load: Load,
    pub(super) grants: RefCell<Grants>,
    /// Answers that are being held against etcd.
    pub(super) auditing: Cell<usize>,
    /// Which drop of all answers the grants come after.
    pub(super) granted_after: Cell<u64>,
}

/// Those who wait for a read to come back, and share the next.
pub(super) struct Round {
    /// Whose token it goes with: that of the first.
    pub(super) credential: Option<Credential>,
    /// Those who still wait.
    pub(super) live: Cell<usize>,
    pub(super) outcome: RefCell<Option<Outcome>>,
    pub(super) wakers: RefCell<Vec<Waker>>,
    /// Of the task that reads for them, or waits for more of them.
    pub(super) reader: Cell<Option<Waker>>,
    /// How many who wait are enough, while the read waits for more of them.
    pub(super) enough: Cell<usize>,
}

/// What becomes of a round.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
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
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) chunks: Vec<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Round {
    pub(super) fn new(credential: Option<Credential>) -> Rc<Round> {
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
    pub(super) fn wake_reader(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Tells everybody.
    pub(super) fn tell(&self, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.wakers.borrow_mut().drain(..).for_each(Waker::wake);
    }
}
