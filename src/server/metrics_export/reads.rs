//! Metrics of shared reads and of the read cache.

use super::MetricsCollector;
use super::family::{Family, counter, gauge, histogram, single};
use crate::metrics::{CACHE_AGE_BUCKETS, Counter, WorkerMetrics};

impl MetricsCollector {
    pub(super) fn reads(&self) -> Vec<Family> {
        let cache = &self.metrics.cache;
        let reason = |name: &str, of: fn(&WorkerMetrics) -> &Counter| {
            let value = self.sum(|w| of(w).get());
            (vec![name.to_owned()], value as f64)
        };
        vec![
            counter(
                "etcd_edge_reads_shared_total",
                "Linearizable reads served by an upstream read shared with other clients.",
                &[],
                self.worker_sum(|w| &w.reads.shared),
            ),
            counter(
                "etcd_edge_stale_reads_retried_total",
                "Serializable reads repeated as linearizable because the response was older than a revision the connection had seen.",
                &[],
                self.worker_sum(|w| &w.reads.stale_retried),
            ),
            gauge(
                "etcd_edge_cache_entries",
                "Cached responses.",
                &[],
                single(cache.count.get() as u64),
            ),
            gauge(
                "etcd_edge_cache_bytes",
                "Memory of cached responses, in bytes.",
                &[],
                single(cache.bytes.get() as u64),
            ),
            gauge(
                "etcd_edge_cache_watch_backed_entries",
                "Cached responses that a watch keeps current.",
                &[],
                self.worker_sum(|w| &w.reads.watch_backed),
            ),
            counter(
                "etcd_edge_cache_hits_total",
                "Serializable reads served from the cache.",
                &[],
                self.worker_sum(|w| &w.reads.hits),
            ),
            counter(
                "etcd_edge_cache_misses_total",
                "Cacheable serializable reads that were sent to etcd.",
                &[],
                self.worker_sum(|w| &w.reads.misses),
            ),
            counter(
                "etcd_edge_cache_rejected_total",
                "Cached responses that were found but not served, by reason.",
                &["reason"],
                vec![
                    reason("expired", |w| &w.reads.expired),
                    reason("written", |w| &w.reads.written),
                    reason("write_uncertain", |w| &w.reads.write_uncertain),
                    reason("connection_floor", |w| &w.reads.connection_floor),
                ],
            ),
            counter(
                "etcd_edge_cache_flushes_total",
                "Times the whole cache was dropped.",
                &[],
                single(cache.flushes.get()),
            ),
            counter(
                "etcd_edge_cache_refreshes_total",
                "Reads that refreshed a cached response before it expired.",
                &[],
                self.worker_sum(|w| &w.reads.refreshes),
            ),
            counter(
                "etcd_edge_cache_audits_total",
                "Cached responses compared with etcd after they were served (--cache-audit).",
                &[],
                self.worker_sum(|w| &w.reads.audits),
            ),
            counter(
                "etcd_edge_cache_audit_mismatches_total",
                "Audited responses that differed from the response of etcd.",
                &[],
                self.worker_sum(|w| &w.reads.audit_mismatches),
            ),
            self.cache_age(),
            gauge(
                "etcd_grpc_proxy_cache_keys_total",
                "Cached responses.",
                &[],
                single(cache.count.get() as u64),
            ),
            gauge(
                "etcd_grpc_proxy_cache_hits_total",
                "Serializable reads served from the cache.",
                &[],
                self.worker_sum(|w| &w.reads.hits),
            ),
            gauge(
                "etcd_grpc_proxy_cache_misses_total",
                "Cacheable serializable reads that were sent to etcd.",
                &[],
                self.worker_sum(|w| &w.reads.misses),
            ),
        ]
    }

    /// Returns the histogram of the age of cached responses.
    fn cache_age(&self) -> Family {
        histogram(
            "etcd_edge_cache_age_seconds",
            "Age of cached responses when they were served.",
            &[],
            &CACHE_AGE_BUCKETS,
            vec![(vec![], self.histogram_sample(|w| &w.reads.ages))],
        )
    }
}
