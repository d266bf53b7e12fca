//! Read cache: responses that all workers share, and the floors that writes and watches raise (R2,
//! R3, R6).
//!
//! A floor is raised before the writer receives its response, so a read that starts afterwards
//! finds the floor. A cache hit locks one shard, and checks the floors only if one was raised since
//! the entry's latest check.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::limits;
use crate::metrics::CacheMetrics;
use crate::state_machine::reads::cache::{Cache, CacheKey, CachedResponse, FoundEntry, Proof};
use crate::state_machine::reads::invalidation_floor::InvalidationFloors;
use crate::wire::range::KeyRange;
use crate::wire::write_set::WriteSet;

/// Value of [`CachedResponse::checked`] for an entry that was never checked against the floors.
pub(crate) const NEVER_CHECKED: u64 = u64::MAX;

/// Read settings from flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Bytes of cached responses; 0 turns the cache off.
    pub cache_bytes: usize,
    /// Maximum age of a cached response; zero turns the cache off.
    pub max_age: Duration,
    /// One in this number of cache hits is compared with etcd; 0 turns the audit off.
    pub audit: u64,
    /// Serializable reads of a connection never go back in revision (R5).
    pub ordering: bool,
}

/// Cache of responses, with its invalidation floors.
#[derive(Debug)]
pub(crate) struct ReadCache {
    options: ReadOptions,
    shards: Box<[CachePadded<Mutex<Cache>>]>,
    hasher: RandomState,
    floors: Mutex<FloorMaps>,
    /// Number of raised floors. An entry starts with [`NEVER_CHECKED`].
    raise_count: AtomicU64,
    /// Number of flushes. A response to a read that started before the latest flush is not stored.
    flush_count: AtomicU64,
    metrics: Arc<CacheMetrics>,
}

#[derive(Debug)]
struct FloorMaps {
    written: InvalidationFloors<i64>,
    uncertain: InvalidationFloors<Instant>,
}

/// Floors of one entry.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Floor {
    pub(crate) written: Option<i64>,
    pub(crate) uncertain: Option<Instant>,
}

impl Floor {
    /// Returns whether the entry is at or above both floors.
    pub(crate) fn is_below(&self, entry: &CachedResponse) -> bool {
        self.written.is_none_or(|written| written <= entry.revision)
            && self
                .uncertain
                .is_none_or(|uncertain| uncertain <= entry.sent)
    }
}

impl ReadCache {
    pub(crate) fn new(options: ReadOptions, metrics: Arc<CacheMetrics>) -> ReadCache {
        let bytes = options.cache_bytes / limits::CACHE_SHARDS;
        let shard = |_| CachePadded::new(Mutex::new(Cache::new(bytes)));
        ReadCache {
            options,
            shards: (0..limits::CACHE_SHARDS).map(shard).collect(),
            hasher: RandomState::default(),
            floors: Mutex::new(FloorMaps {
                written: InvalidationFloors::new(
                    limits::CACHE_FLOORS,
                    limits::CACHE_FLOOR_BYTES,
                    fastrand::u64(..),
                ),
                uncertain: InvalidationFloors::new(
                    limits::CACHE_FLOORS,
                    limits::CACHE_FLOOR_BYTES,
                    fastrand::u64(..),
                ),
            }),
            raise_count: AtomicU64::new(0),
            flush_count: AtomicU64::new(0),
            metrics,
        }
    }

    pub(crate) fn options(&self) -> &ReadOptions {
        &self.options
    }

    /// Returns whether the cache is on.
    pub(crate) fn is_on(&self) -> bool {
        self.options.cache_bytes > 0 && !self.options.max_age.is_zero()
    }

    /// Returns the number of flushes. [`ReadCache::store`] compares it with the number at the start
    /// of a read.
    pub(crate) fn flush_count(&self) -> u64 {
        self.flush_count.load(Ordering::Acquire)
    }

    /// Returns the entry of a read. If [`FoundEntry::needs_refresh`] is set, this caller must
    /// refresh the entry. The flag is set for one caller per stored response.
    pub(crate) fn lookup(&self, question: &CacheKey, now: Instant) -> Option<FoundEntry> {
        let refresh_age = self.options.max_age / 4 * 3;
        self.shard(question)
            .lock()
            .lookup(question, now, refresh_age)
    }

    /// Returns the floors of an entry. Returns no floor if none was raised since the entry was last
    /// found to be above them.
    pub(crate) fn floor(&self, entry: &CachedResponse) -> Floor {
        // Load the count before the floors: a floor raised meanwhile is checked by the next hit.
        let raise_count = self.raise_count.load(Ordering::Acquire);
        if entry.checked.load(Ordering::Relaxed) == raise_count {
            return Floor::default();
        }
        let floor = {
            let floors = self.floors.lock();
            Floor {
                written: floors.written.highest(&entry.range),
                uncertain: floors.uncertain.highest(&entry.range),
            }
        };
        if floor.is_below(entry) {
            entry.checked.store(raise_count, Ordering::Relaxed);
        }
        floor
    }

    /// Sets or removes the watch proof of an entry. Returns false if there is no entry.
    pub(crate) fn set_proof(&self, question: &CacheKey, proof: Option<Proof>) -> bool {
        self.shard(question).lock().set_proof(question, proof)
    }

    /// Stores the response to a read that started after `flush_count` flushes. Returns whether it
    /// was stored.
    pub(crate) fn store(
        &self,
        question: CacheKey,
        entry: CachedResponse,
        flush_count: u64,
    ) -> bool {
        let mut shard = self.shard(&question).lock();
        // Under the lock: a flush locks every shard after it has raised the count.
        if self.flush_count() != flush_count {
            return false;
        }
        let before = (shard.len(), shard.bytes());
        let stored = shard.store(question, entry);
        self.count_shard(before, &shard);
        stored
    }

    /// Replaces an entry with the same response at a later revision.
    pub(crate) fn advance(&self, question: &CacheKey, entry: CachedResponse) {
        let mut shard = self.shard(question).lock();
        let before = (shard.len(), shard.bytes());
        shard.advance(question, entry);
        self.count_shard(before, &shard);
    }

    /// Returns whether there is an entry for a read.
    pub(crate) fn contains(&self, question: &CacheKey) -> bool {
        self.shard(question).lock().contains(question)
    }

    /// Raises the floors for a write at `revision`. The writer receives its response after this
    /// call.
    pub(crate) fn raise_written(&self, write_set: &WriteSet, revision: i64) {
        match write_set {
            WriteSet::Nothing => return,
            WriteSet::Ranges(ranges) => {
                let mut floors = self.floors.lock();
                for range in ranges {
                    floors.written.raise(range, revision);
                }
            }
            WriteSet::AllKeys => self.floors.lock().written.raise_all(revision),
            WriteSet::Everything => return self.flush(),
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Raises the floors for events of a watch: each write is a key and its revision.
    pub(crate) fn raise_from_events<'a>(&self, writes: impl Iterator<Item = (&'a Bytes, i64)>) {
        {
            let mut floors = self.floors.lock();
            for (key, revision) in writes {
                // Copied: the key of an event shares the memory of its whole batch.
                let key = KeyRange::of(Bytes::copy_from_slice(key), Bytes::new());
                floors.written.raise(&key, revision);
            }
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Raises the floors for a write that etcd may have applied or may still apply, for
    /// [`limits::CACHE_UNCERTAIN_TIME`].
    pub(crate) fn raise_uncertain(&self, write_set: &WriteSet, now: Instant) {
        let until = now + limits::CACHE_UNCERTAIN_TIME;
        match write_set {
            WriteSet::Nothing => return,
            WriteSet::Ranges(ranges) => {
                let mut floors = self.floors.lock();
                for range in ranges {
                    floors.uncertain.raise(range, until);
                }
            }
            WriteSet::AllKeys => self.floors.lock().uncertain.raise_all(until),
            WriteSet::Everything => {
                self.floors.lock().uncertain.raise_all(until);
                self.flush();
            }
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Flushes the cache: removes all entries.
    pub(crate) fn flush(&self) {
        self.flush_count.fetch_add(1, Ordering::AcqRel);
        self.metrics.flushes.inc();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = (shard.len(), shard.bytes());
            shard.clear();
            self.count_shard(before, &shard);
        }
    }

    /// Forgets all revisions and flushes the cache, because the store's history was reset.
    pub(crate) fn reset_history(&self) {
        {
            let mut floors = self.floors.lock();
            floors.written.clear();
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
        self.flush();
    }

    /// Returns the hits of an entry since the last call, or `None` if there is no entry.
    pub(crate) fn take_hits(&self, question: &CacheKey) -> Option<u32> {
        self.shard(question).lock().take_request_count(question)
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.metrics.count.get()
    }

    fn shard(&self, question: &CacheKey) -> &Mutex<Cache> {
        let hash = self.hasher.hash_one(question);
        // The index is below the number of shards.
        &self.shards[(hash >> 32) as usize % self.shards.len()]
    }

    fn count_shard(&self, (count, bytes): (usize, usize), shard: &Cache) {
        self.metrics.count.change(count, shard.len());
        self.metrics.bytes.change(bytes, shard.bytes());
    }
}
