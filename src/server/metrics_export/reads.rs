//! Reads that are shared, and answers that are kept.

use super::MetricsCollector;
use super::family::{Family, alone, counter, gauge, histogram};
use crate::metrics::{AGES, Counter, WorkerMetrics};

impl MetricsCollector {
    pub(super) fn reads(&self) -> Vec<Family> {
        let answers = &self.metrics.answers;
        let reason = |name: &str, of: fn(&WorkerMetrics) -> &Counter| {
            let value = self.sum(|w| of(w).get());
            (vec![name.to_owned()], value as f64)
        };
        vec![
            counter(
                "etcd_edge_reads_shared_total",
                "Linearizable reads served by an upstream read shared with other clients.",
                &[],
                self.plain(|w| &w.reads.shared),
            ),
            counter(
                "etcd_edge_stale_reads_retried_total",
                "Serializable reads repeated as linearizable because the response was older than a revision the connection had seen.",
                &[],
                self.plain(|w| &w.reads.stale_retried),
            ),
            gauge(
                "etcd_edge_cache_entries",
                "Cached responses.",
                &[],
                alone(answers.count.get() as u64),
            ),
            gauge(
                "etcd_edge_cache_bytes",
                "Memory of cached responses, in bytes.",
                &[],
                alone(answers.bytes.get() as u64),
            ),
            gauge(
                "etcd_edge_cache_watch_backed_entries",
                "Cached responses that a watch keeps current.",
                &[],
                self.plain(|w| &w.reads.watch_backed),
            ),
            counter(
                "etcd_edge_cache_hits_total",
                "Serializable reads served from the cache.",
                &[],
                self.plain(|w| &w.reads.hits),
            ),
            counter(
                "etcd_edge_cache_misses_total",
                "Cacheable serializable reads that were sent to etcd.",
                &[],
                self.plain(|w| &w.reads.misses),
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
                alone(answers.flushes.get()),
            ),
            counter(
                "etcd_edge_cache_refreshes_total",
                "Reads that refreshed a cached response before it expired.",
                &[],
                self.plain(|w| &w.reads.refreshes),
            ),
            counter(
                "etcd_edge_cache_audits_total",
                "Cached responses compared with etcd after they were served (--cache-audit).",
                &[],
                self.plain(|w| &w.reads.audits),
            ),
            counter(
                "etcd_edge_cache_audit_mismatches_total",
                "Audited responses that differed from the response of etcd.",
                &[],
                self.plain(|w| &w.reads.audit_mismatches),
            ),
            self.ages(),
            gauge(
                "etcd_grpc_proxy_cache_keys_total",
                "Cached responses.",
                &[],
                alone(answers.count.get() as u64),
            ),
            gauge(
                "etcd_grpc_proxy_cache_hits_total",
                "Serializable reads served from the cache.",
                &[],
                self.plain(|w| &w.reads.hits),
            ),
            gauge(
                "etcd_grpc_proxy_cache_misses_total",
                "Cacheable serializable reads that were sent to etcd.",
                &[],
                self.plain(|w| &w.reads.misses),
            ),
        ]
    }

    /// How old answers were when they were given.
    fn ages(&self) -> Family {
        histogram(
            "etcd_edge_cache_age_seconds",
            "Age of cached responses when they were served.",
            &[],
            &AGES,
            vec![(vec![], self.fallen(|w| &w.reads.ages))],
        )
    }
}
