//! Answers that all workers keep together, and the floors that writes and watches raise (R2, R3, R6).
//!
//! A floor is raised before the writer is told: whoever asks after that finds it. What is looked at on
//! the way of a hit is a shard under its lock, and the floors only when one was raised since the answer
//! was last looked at.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::limits;
use crate::metrics::AnswerMetrics;
use crate::state_machine::reads::cache::{Cache, CachedResponse, Found, Proof, Question};
use crate::state_machine::reads::invalidation_floor::InvalidationFloors;
use crate::wire::range::KeyRange;
use crate::wire::write_set::Touched;

/// What no count of raised floors is.
pub(crate) const NEVER_CHECKED: u64 = u64::MAX;

/// What flags say of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Bytes of answers that are kept; 0 is none.
    pub cache_bytes: usize,
    /// How old a kept answer may be; zero: none is kept.
    pub max_age: Duration,
    /// One in so many kept answers is held against etcd; 0 is none.
    pub audit: u64,
    /// Serializable reads of a connection never go back in revision.
    pub ordering: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ReadCache {
    options: ReadOptions,
    shards: Box<[CachePadded<Mutex<Cache>>]>,
    hasher: RandomState,
    floors: Mutex<Floors>,
    /// Grows with each floor that is raised; an answer begins with [`NEVER_CHECKED`].
    raise_count: AtomicU64,
    /// Grows whenever all answers are dropped: one that was asked for before is not kept.
    flush_count: AtomicU64,
    metrics: Arc<AnswerMetrics>,
}

#[derive(Debug)]
struct Floors {
    written: InvalidationFloors<i64>,
    uncertain: InvalidationFloors<Instant>,
}

/// What the floors say of an answer.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Floor {
    pub(crate) written: Option<i64>,
    pub(crate) uncertain: Option<Instant>,
}

impl Floor {
    /// Whether an answer is above it.
    pub(crate) fn is_below(&self, entry: &CachedResponse) -> bool {
        self.written.is_none_or(|written| written <= entry.revision)
            && self.uncertain.is_none_or(|uncertain| uncertain <= entry.asked)
    }
}

impl ReadCache {
    pub(crate) fn new(options: ReadOptions, metrics: Arc<AnswerMetrics>) -> ReadCache {
        let bytes = options.cache_bytes / limits::CACHE_SHARDS;
        let shard = |_| CachePadded::new(Mutex::new(Cache::new(bytes)));
        ReadCache {
            options,
            shards: (0..limits::CACHE_SHARDS).map(shard).collect(),
            hasher: RandomState::default(),
            floors: Mutex::new(Floors {
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

    /// Whether answers are kept at all.
    pub(crate) fn is_on(&self) -> bool {
        self.options.cache_bytes > 0 && !self.options.max_age.is_zero()
    }

    /// Which answers count: those that were asked for under this number.
    pub(crate) fn flush_count(&self) -> u64 {
        self.flush_count.load(Ordering::Acquire)
    }

    /// What is kept of a question. It is to be renewed by whoever is told so, one at a time.
    pub(crate) fn lookup(&self, question: &Question, now: Instant) -> Option<Found> {
        let refresh_age = self.options.max_age / 4 * 3;
        self.shard(question).lock().look(question, now, refresh_age)
    }

    /// What the floors say of an answer; none when no floor was raised since it was last found to be
    /// above them.
    pub(crate) fn floor(&self, entry: &CachedResponse) -> Floor {
        // Read before the floors: one that is raised meanwhile is looked at the next time.
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

    /// What proves the answer to a question right from now on; false when there is none.
    pub(crate) fn set_proof(&self, question: &Question, proof: Option<Proof>) -> bool {
        self.shard(question).lock().prove(question, proof)
    }

    /// Keeps an answer that was asked for when [`ReadCache::dropped`] was this, if there is room for it.
    pub(crate) fn store(&self, question: Question, entry: CachedResponse, flush_count: u64) -> bool {
        let mut shard = self.shard(&question).lock();
        // Under the lock: whoever drops all comes by here after he has said so.
        if self.flush_count() != flush_count {
            return false;
        }
        let before = (shard.len(), shard.bytes());
        let stored = shard.store(question, entry);
        self.count_shard(before, &shard);
        stored
    }

    /// Puts an answer, true at a later revision, in the place of the same one.
    pub(crate) fn advance(&self, question: &Question, entry: CachedResponse) {
        let mut shard = self.shard(question).lock();
        let before = (shard.len(), shard.bytes());
        shard.advance(question, entry);
        self.count_shard(before, &shard);
    }

    /// Whether something is kept of a question.
    pub(crate) fn contains(&self, question: &Question) -> bool {
        self.shard(question).lock().has(question)
    }

    /// A write was done at this revision; its writer is told after this.
    pub(crate) fn raise_written(&self, touched: &Touched, revision: i64) {
        match touched {
            Touched::Nothing => return,
            Touched::Ranges(ranges) => {
                let mut floors = self.floors.lock();
                for range in ranges {
                    floors.written.raise(range, revision);
                }
            }
            Touched::AllKeys => self.floors.lock().written.raise_all(revision),
            Touched::Everything => return self.flush(),
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
    }

    /// A watch tells of writes.
    pub(crate) fn raise_from_events<'a>(&self, writes: impl Iterator<Item = (&'a Bytes, i64)>) {
        {
            let mut floors = self.floors.lock();
            for (key, revision) in writes {
                // A key of its own: the event's is a part of its batch.
                let key = KeyRange::of(Bytes::copy_from_slice(key), Bytes::new());
                floors.written.raise(&key, revision);
            }
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
    }

    /// A write may have been done, or may still be.
    pub(crate) fn raise_uncertain(&self, touched: &Touched, now: Instant) {
        let until = now + limits::CACHE_UNCERTAIN_TIME;
        match touched {
            Touched::Nothing => return,
            Touched::Ranges(ranges) => {
                let mut floors = self.floors.lock();
                for range in ranges {
                    floors.uncertain.raise(range, until);
                }
            }
            Touched::AllKeys => self.floors.lock().uncertain.raise_all(until),
            Touched::Everything => {
                self.floors.lock().uncertain.raise_all(until);
                self.flush();
            }
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
    }

    /// No answer counts any more.
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

    /// History went back: revisions of before say nothing.
    pub(crate) fn reset_history(&self) {
        {
            let mut floors = self.floors.lock();
            floors.written.clear();
        }
        self.raise_count.fetch_add(1, Ordering::AcqRel);
        self.flush();
    }

    /// How often an answer was asked for since this was last called; none when it is not there.
    pub(crate) fn take_hits(&self, question: &Question) -> Option<u32> {
        self.shard(question).lock().take_asked(question)
    }

    /// How many answers are kept.
    pub(crate) fn len(&self) -> usize {
        self.metrics.count.get()
    }

    fn shard(&self, question: &Question) -> &Mutex<Cache> {
        let hash = self.hasher.hash_one(question);
        // Below the number of shards.
        &self.shards[(hash >> 32) as usize % self.shards.len()]
    }

    fn count_shard(&self, (count, bytes): (usize, usize), shard: &Cache) {
        self.metrics.count.change(count, shard.len());
        self.metrics.bytes.change(bytes, shard.bytes());
    }
}
