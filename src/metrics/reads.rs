//! Metrics of shared reads and of the read cache.

use std::time::Duration;

use super::counter::{Counter, Gauge, SharedCounter};
use super::histogram::Histogram;

/// Metrics of reads of one worker.
#[derive(Debug, Default)]
pub struct ReadMetrics {
    /// Linearizable reads served by an upstream read shared with other clients.
    pub shared: Counter,
    /// Serializable reads served from the cache.
    pub hits: Counter,
    /// Cacheable serializable reads sent to etcd.
    pub misses: Counter,
    /// Cached responses not served because they had expired.
    pub expired: Counter,
    /// Cached responses not served because a write changed the range.
    pub written: Counter,
    /// Cached responses not served because a write with an unknown result may have changed the
    /// range.
    pub write_uncertain: Counter,
    /// Cached responses not served because the connection had seen a newer revision.
    pub connection_floor: Counter,
    /// Reads that refreshed a cached response before it expired.
    pub refreshes: Counter,
    /// Serializable reads repeated because the response of etcd was older than a revision that the
    /// connection had seen.
    pub stale_retried: Counter,
    /// Watch-backed entries.
    pub watch_backed: Counter,
    /// Age of cached responses when served, with the bounds [`CACHE_AGE_BUCKETS`].
    pub ages: Histogram<{ CACHE_AGE_BUCKETS.len() }>,
    /// Cached responses compared with etcd after they were served (`--cache-audit`).
    pub audits: Counter,
    /// Audited responses that differed from the response of etcd.
    pub audit_mismatches: Counter,
}

/// Bucket bounds of the age of cached responses, in microseconds.
pub const CACHE_AGE_BUCKETS: [u64; 11] = [
    1_000, 5_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

impl ReadMetrics {
    /// Records a cache hit with the age of the response.
    pub fn observe_hit(&self, age: Duration) {
        self.hits.inc();
        self.ages.observe(&CACHE_AGE_BUCKETS, age);
    }
}

/// Metrics of the read cache, for all workers.
#[derive(Debug, Default)]
pub struct CacheMetrics {
    /// Number of cached responses.
    pub count: Gauge,
    /// Memory of the cached responses, in bytes.
    pub bytes: Gauge,
    /// Times the whole cache was dropped.
    pub flushes: SharedCounter,
}
