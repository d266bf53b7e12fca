//! Watch log: the last batches of one feed, for client watchers that are behind or join later (I1).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::Encoded;
use super::slab::Key;
use crate::state_machine::watch::Batch;

/// Batches in order, numbered without gaps.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<LogEntry>,
    /// Number of the first batch.
    first_number: u64,
    /// Memory used, in bytes.
    bytes: usize,
}

/// One batch and its encodings, by group.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub(super) batch: Arc<Batch>,
    encoded: HashMap<Key, Encoded>,
    bytes: usize,
}

impl Log {
    /// Returns the number of the next batch.
    pub(super) fn next(&self) -> u64 {
        self.first_number + self.entries.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, entry: LogEntry) {
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
    }

    /// Evicts the first batch. Returns the freed bytes and the last revision of the batch.
    pub(super) fn evict(&mut self) -> Option<(usize, i64)> {
        let entry = self.entries.pop_front()?;
        self.first_number += 1;
        self.bytes -= entry.bytes;
        Some((entry.bytes, entry.batch.frontier))
    }

    /// Returns whether the first batch has this number.
    pub(super) fn starts_with(&self, number: u64) -> bool {
        number == self.first_number && !self.entries.is_empty()
    }

    /// Returns whether the batch of this number is in the log.
    pub(super) fn contains(&self, number: u64) -> bool {
        (self.first_number..self.next()).contains(&number)
    }

    /// Returns the position of the first batch that reaches revision `next` or a later one.
    pub(super) fn from(&self, next: i64) -> Option<usize> {
        let at = self
            .entries
            .partition_point(|entry| entry.batch.frontier < next);
        (at < self.entries.len()).then_some(at)
    }

    pub(super) fn entry(&self, at: usize) -> &LogEntry {
        &self.entries[at]
    }

    /// Returns the encoding for a group, which `make` creates if it is absent. The two numbers are
    /// the cost in events processed (at least 1) and the bytes added to the log.
    pub(super) fn encoded(
        &mut self,
        at: usize,
        group: Key,
        make: impl FnOnce(&Batch) -> Encoded,
    ) -> (&mut Encoded, usize, usize) {
        let entry = &mut self.entries[at];
        let (mut work, mut added) = (1, 0);
        if !entry.encoded.contains_key(&group) {
            work += entry.batch.events.len();
            added = entry.store(group, make(&entry.batch));
            self.bytes += added;
        }
        let encoded = entry.encoded.entry(group).or_default();
        (encoded, work, added)
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &Arc<Batch>> {
        self.entries.iter().map(|entry| &entry.batch)
    }
}

impl LogEntry {
    pub(super) fn new(batch: Arc<Batch>) -> LogEntry {
        LogEntry {
            bytes: batch.bytes,
            batch,
            encoded: HashMap::new(),
        }
    }

    /// Stores the encoding for a group and returns its size in bytes.
    pub(super) fn store(&mut self, group: Key, encoded: Encoded) -> usize {
        let bytes = encoded.bytes();
        self.bytes += bytes;
        self.encoded.insert(group, encoded);
        bytes
    }
}
