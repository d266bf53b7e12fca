//! How far this process knows the store to have come: the highest revision in any answer that passed
//! through it. A watch that begins "now" begins behind it, so that its client is never told as news
//! what it could have read before (W4).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::wire::method::Method;
use crate::wire::response_header;
use crate::wire::response_header::Header;

/// One for the process. Read with every answer, written when the store has moved.
#[derive(Debug, Default)]
pub(in crate::driver) struct StoreRevision {
    cluster_id: AtomicU64,
    member_id: AtomicU64,
    raft_term: AtomicU64,
    revision: AtomicI64,
    /// How often history has been found to have gone back.
    history: AtomicU64,
}

impl StoreRevision {
    /// The highest revision, and who told of it. All zero when nothing is known.
    pub(in crate::driver) fn header(&self) -> Header {
        Header {
            cluster_id: self.cluster_id.load(Ordering::Relaxed),
            member_id: self.member_id.load(Ordering::Relaxed),
            // Whoever has been sent an answer by another worker must find its revision here: it was
            // stored before that answer left, and a socket orders the two.
            revision: self.revision.load(Ordering::Acquire),
            raft_term: self.raft_term.load(Ordering::Relaxed),
        }
    }

    /// The highest revision.
    pub(in crate::driver) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Which history it is: a revision of another one says nothing of this.
    pub(in crate::driver) fn history(&self) -> u64 {
        self.history.load(Ordering::Relaxed)
    }

    /// Notes the header of an answer.
    pub(in crate::driver) fn see(&self, header: &Header) {
        // Many answers have none, or one without a revision: nothing to learn.
        if header.revision <= 0 || header.cluster_id == 0 {
            return;
        }
        if self.cluster(header.cluster_id) != header.cluster_id {
            // Another cluster's: a watch stream will show it too, and there it is looked into.
            return;
        }
        if header.revision > self.revision.load(Ordering::Relaxed) {
            self.member_id.store(header.member_id, Ordering::Relaxed);
            self.raft_term.store(header.raft_term, Ordering::Relaxed);
            self.revision.fetch_max(header.revision, Ordering::AcqRel);
        }
    }

    /// The cluster; `first` when there was none yet.
    fn cluster(&self, first: u64) -> u64 {
        match self.cluster_id.load(Ordering::Relaxed) {
            0 => self
                .cluster_id
                .compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed)
                .map_or_else(|other| other, |_| first),
            cluster => cluster,
        }
    }

    /// Notes the header of the message that begins `bytes`, if the method's answers have one, and
    /// gives it back.
    pub(in crate::driver) fn see_answer(
        &self,
        method: Option<&Method>,
        bytes: &[u8],
    ) -> Option<Header> {
        let header = response_header::peek(method?, bytes)?;
        self.see(&header);
        Some(header)
    }

    /// History has gone back, or the cluster is another one: what was known is void.
    pub(in crate::driver) fn reset(&self, header: &Header) {
        self.history.fetch_add(1, Ordering::Relaxed);
        self.cluster_id.store(header.cluster_id, Ordering::Relaxed);
        self.member_id.store(header.member_id, Ordering::Relaxed);
        self.raft_term.store(header.raft_term, Ordering::Relaxed);
        self.revision.store(header.revision, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster_id: u64, revision: i64) -> Header {
        Header {
            cluster_id,
            revision,
            member_id: 7,
            raft_term: 3,
        }
    }

    #[test]
    fn only_grows_and_only_within_one_cluster() {
        let known = StoreRevision::default();
        for revision in [0, 5, 3, 9, 4] {
            known.see(&header(1, revision));
        }
        assert_eq!(known.header(), header(1, 9));
        known.see(&header(2, 50));
        assert_eq!(known.header(), header(1, 9));
        known.reset(&header(2, 4));
        assert_eq!(known.header(), header(2, 4));
        known.see(&header(2, 6));
        assert_eq!(known.header().revision, 6);
    }
}
