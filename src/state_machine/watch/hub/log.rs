//! The last batches of a feed, for who is behind and who comes later (I1).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::Encoded;
use super::slab::Key;
use crate::state_machine::watch::Batch;

/// Batches in order, numbered without a gap.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<LogEntry>,
    /// The number of the first.
    first: u64,
    /// What it holds in memory.
    bytes: usize,
}

/// One batch, and what was encoded of it for those who read it from here.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub(super) batch: Arc<Batch>,
    encoded: HashMap<Key, Encoded>,
    bytes: usize,
}

impl Log {
    /// The number the next batch gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
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

    /// Drops the first batch: the bytes that are free now, and the revision it went through.
    pub(super) fn evict(&mut self) -> Option<(usize, i64)> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= entry.bytes;
        Some((entry.bytes, entry.batch.through))
    }

    /// Whether this number is the first's.
    pub(super) fn starts_with(&self, number: u64) -> bool {
        number == self.first && !self.entries.is_empty()
    }

    /// Whether the batch of this number is still there.
    pub(super) fn holds(&self, number: u64) -> bool {
        (self.first..self.next()).contains(&number)
    }

    /// The batch in which `next` or what comes after it is.
    pub(super) fn from(&self, next: i64) -> Option<usize> {
        let at = self
            .entries
            .partition_point(|entry| entry.batch.through < next);
        (at < self.entries.len()).then_some(at)
    }

    pub(super) fn entry(&self, at: usize) -> &LogEntry {
        &self.entries[at]
    }

    /// The encoding for a group, made unless it is there: what was done, in events looked at, and
    /// the bytes it added.
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
            added = entry.keep(group, make(&entry.batch));
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

    /// Keeps what was encoded for a group, and says how many bytes that adds.
    pub(super) fn keep(&mut self, group: Key, encoded: Encoded) -> usize {
        let bytes = encoded.bytes();
        self.bytes += bytes;
        self.encoded.insert(group, encoded);
        bytes
    }
}
