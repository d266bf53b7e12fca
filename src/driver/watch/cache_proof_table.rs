//! The watch proofs of one worker and their pending barriers.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use tokio::sync::Notify;

use crate::driver::state::identity::Session;
use crate::driver::watch::outbox::CACHE_PROOFS;
use crate::state_machine::reads::cache::CacheKey;
use crate::state_machine::reads::watch_proof::WatchProof;
use crate::state_machine::watch::hub::IdentityId;
use crate::state_machine::watch::trunk::{BarrierWaiter, Subscriber};

/// The proofs that use the shared links of this worker.
#[derive(Default)]
pub(super) struct CacheProofTable {
    /// The number of the newest proof.
    last_number: Cell<u64>,
    pub(super) open: RefCell<HashMap<u64, CacheProof>>,
    questions: RefCell<HashSet<CacheKey>>,
    /// Barriers that have been requested and not reached; at most one per identity.
    pub(super) pending_barriers: RefCell<HashMap<IdentityId, Barrier>>,
    /// Signals that the first proof was added.
    pub(super) opened: Notify,
}

/// A barrier that has been requested and not reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Barrier {
    /// Time of the request.
    pub(super) requested_at: Instant,
    /// The number of cache flushes before the request.
    pub(super) flushes: u64,
}

/// A watch that keeps one cached response current.
pub(super) struct CacheProof {
    pub(super) question: CacheKey,
    pub(super) proof: WatchProof,
    /// Keeps the token of the identity in use.
    pub(super) session: Session,
    /// The number of cache flushes before the proof was opened. The next flush ends the proof.
    pub(super) flushes: u64,
    /// Time at which the proof was opened. A barrier requested earlier proves nothing about it.
    pub(super) opened_at: Instant,
    /// Time of the last check of the use of the cached response.
    pub(super) checked_at: Instant,
}

impl CacheProof {
    pub(super) fn identity_id(&self) -> IdentityId {
        IdentityId(self.session.identity().number())
    }
}

impl CacheProofTable {
    /// Returns the number of proofs.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Adds a proof and returns its number, or `None` if the cached response already has one.
    pub(super) fn insert(&self, proof: CacheProof) -> Option<u64> {
        let question = proof.question.clone();
        if !self.questions.borrow_mut().insert(question) {
            return None;
        }
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        self.open.borrow_mut().insert(number, proof);
        Some(number)
    }

    /// Removes a proof.
    pub(super) fn remove(&self, number: u64) -> Option<CacheProof> {
        let proof = self.open.borrow_mut().remove(&number)?;
        self.questions.borrow_mut().remove(&proof.question);
        Some(proof)
    }

    /// Returns the identities that have a proof.
    pub(super) fn identity_ids(&self) -> HashSet<IdentityId> {
        self.open
            .borrow()
            .values()
            .map(CacheProof::identity_id)
            .collect()
    }
}

/// Returns the name of a proof's feed for a trunk.
pub(super) fn subscriber(number: u64) -> Subscriber {
    Subscriber {
        worker: CACHE_PROOFS,
        feed: number,
    }
}

/// Returns the name of the proofs of an identity for the barrier of its trunk.
pub(super) fn waiter(identity_id: IdentityId) -> BarrierWaiter {
    BarrierWaiter {
        worker: CACHE_PROOFS,
        stream: identity_id.0,
    }
}
