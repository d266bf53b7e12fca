//! Highest known revision of the store: the maximum of the header revisions of all responses that
//! passed through the process.
//!
//! A watch without a start revision starts after this revision. Its client therefore never receives
//! an event that it could have read before (W4).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::wire::compression::decompressed_start;
use crate::wire::method::Method;
use crate::wire::response_header;
use crate::wire::response_header::Header;

/// Maximum bytes to decompress of a response. Its header is shorter.
const MAX_HEADER_BYTES: usize = 256;

/// Highest known revision, one value per process. Read for each response, written when the store
/// advances.
#[derive(Debug, Default)]
pub(in crate::driver) struct StoreRevision {
    cluster_id: AtomicU64,
    member_id: AtomicU64,
    raft_term: AtomicU64,
    revision: AtomicI64,
    /// Number of resets of the store's history.
    history: AtomicU64,
}

impl StoreRevision {
    /// Returns the header with the highest revision, and the member that sent it. All zero if
    /// unknown.
    pub(in crate::driver) fn header(&self) -> Header {
        Header {
            cluster_id: self.cluster_id.load(Ordering::Relaxed),
            member_id: self.member_id.load(Ordering::Relaxed),
            // A client with a response from another worker must find the revision of that response
            // here. The revision is stored before the response leaves, and the socket orders both.
            revision: self.revision.load(Ordering::Acquire),
            raft_term: self.raft_term.load(Ordering::Relaxed),
        }
    }

    /// Returns the highest revision.
    pub(in crate::driver) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Returns the number of the history. Revisions of different histories are not comparable.
    pub(in crate::driver) fn history(&self) -> u64 {
        self.history.load(Ordering::Relaxed)
    }

    /// Updates the revision from a response header.
    pub(in crate::driver) fn observe(&self, header: &Header) {
        // Many responses have no header, or a header without a revision.
        if header.revision <= 0 || header.cluster_id == 0 {
            return;
        }
        if self.cluster(header.cluster_id) != header.cluster_id {
            // Another cluster. A watch stream will also report it and handle it.
            return;
        }
        if header.revision > self.revision.load(Ordering::Relaxed) {
            self.member_id.store(header.member_id, Ordering::Relaxed);
            self.raft_term.store(header.raft_term, Ordering::Relaxed);
            self.revision.fetch_max(header.revision, Ordering::AcqRel);
        }
    }

    /// Returns the cluster ID; sets it to `first` if it was unknown.
    fn cluster(&self, first: u64) -> u64 {
        match self.cluster_id.load(Ordering::Relaxed) {
            0 => self
                .cluster_id
                .compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed)
                .map_or_else(|other| other, |_| first),
            cluster => cluster,
        }
    }

    /// Updates the revision from the message that starts `bytes`, compressed or not, if responses of the method have a
    /// header. Returns the header.
    pub(in crate::driver) fn observe_response(
        &self,
        method: Option<&Method>,
        bytes: &[u8],
    ) -> Option<Header> {
        let method = method?;
        let header = response_header::peek(method, bytes).or_else(|| {
            response_header::peek(method, &decompressed_start(bytes, MAX_HEADER_BYTES)?)
        })?;
        self.observe(&header);
        Some(header)
    }

    /// Replaces the revision, because the history was reset or the cluster is another one.
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
    use crate::wire::{compression, frame};

    fn header(cluster_id: u64, revision: i64) -> Header {
        Header {
            cluster_id,
            revision,
            member_id: 7,
            raft_term: 3,
        }
    }

    #[test]
    fn reads_the_header_of_a_compressed_response() {
        let put = crate::wire::method::lookup("/etcdserverpb.KV/Put");
        let response = frame::encode(b"\x0a\x04\x08\x05\x18\x07");
        let compressed = compression::compress([&response[..]].into_iter()).unwrap();
        for bytes in [response, compressed] {
            let store_revision = StoreRevision::default();
            let header = store_revision.observe_response(put, &bytes).unwrap();
            assert_eq!((header.cluster_id, header.revision), (5, 7));
            assert_eq!(store_revision.revision(), 7);
        }
    }

    #[test]
    fn the_revision_only_grows_and_only_within_one_cluster() {
        let store_revision = StoreRevision::default();
        for revision in [0, 5, 3, 9, 4] {
            store_revision.observe(&header(1, revision));
        }
        assert_eq!(store_revision.header(), header(1, 9));
        store_revision.observe(&header(2, 50));
        assert_eq!(store_revision.header(), header(1, 9));
        store_revision.reset(&header(2, 4));
        assert_eq!(store_revision.header(), header(2, 4));
        store_revision.observe(&header(2, 6));
        assert_eq!(store_revision.header().revision, 6);
    }
}
