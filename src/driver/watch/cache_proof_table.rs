//! What one worker keeps of watches that prove kept answers right.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use tokio::sync::Notify;

use crate::driver::state::identity::Session;
use crate::driver::watch::outbox::COVERS;
use crate::state_machine::reads::cache::Question;
use crate::state_machine::reads::watch_proof::WatchProof;
use crate::state_machine::watch::hub::IdentityId;
use crate::state_machine::watch::trunk::{Sub, Token};

/// Those of the lines that this worker owns.
#[derive(Default)]
pub(super) struct CacheProofTable {
    /// The number of the last.
    last: Cell<u64>,
    pub(super) open: RefCell<HashMap<u64, CacheProof>>,
    questions: RefCell<HashSet<Question>>,
    /// Barriers that are waited for, by the identity.
    pub(super) asked: RefCell<HashMap<IdentityId, Barrier>>,
    /// There is one, where there was none.
    pub(super) begun: Notify,
}

/// A barrier that is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Barrier {
    /// Since when.
    pub(super) asked: Instant,
    /// Which drop of all answers came last before that.
    pub(super) dropped: u64,
}

/// One of them.
pub(super) struct CacheProof {
    pub(super) question: Question,
    pub(super) cover: WatchProof,
    /// Keeps the identity's token in use.
    pub(super) session: Session,
    /// Which drop of all answers it comes after: it proves nothing beyond the next.
    pub(super) dropped: u64,
    /// Barriers that were asked for before say nothing of it.
    pub(super) begun: Instant,
    /// When it was last looked how often the answer is given.
    pub(super) looked: Instant,
}

impl CacheProof {
    pub(super) fn identity(&self) -> IdentityId {
        IdentityId(self.session.login().number())
    }
}

impl CacheProofTable {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Takes one in, and says its number; `None` when there is one for the same answer.
    pub(super) fn insert(&self, covering: CacheProof) -> Option<u64> {
        let question = covering.question.clone();
        if !self.questions.borrow_mut().insert(question) {
            return None;
        }
        let number = self.last.get() + 1;
        self.last.set(number);
        self.open.borrow_mut().insert(number, covering);
        Some(number)
    }

    /// Forgets one.
    pub(super) fn remove(&self, number: u64) -> Option<CacheProof> {
        let covering = self.open.borrow_mut().remove(&number)?;
        self.questions.borrow_mut().remove(&covering.question);
        Some(covering)
    }

    /// The identities that have one.
    pub(super) fn identities(&self) -> HashSet<IdentityId> {
        self.open
            .borrow()
            .values()
            .map(CacheProof::identity)
            .collect()
    }
}

/// A cover as trunks know it.
pub(super) fn sub(number: u64) -> Sub {
    Sub {
        worker: COVERS,
        feed: number,
    }
}

/// The covers of an identity, as its trunk knows them.
pub(super) fn token(identity: IdentityId) -> Token {
    Token {
        worker: COVERS,
        stream: identity.0,
    }
}
