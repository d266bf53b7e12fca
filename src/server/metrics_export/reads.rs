//! Reads that are shared, and answers that are kept.

use super::MetricsCollector;
use super::family::{Family, alone, counter, gauge, histogram};
use crate::metrics::{AGES, Counter, WorkerMetrics};

impl MetricsCollector {
    pub(super) fn reads(&self) -> Vec<Family> {
        let answers = &self.metrics.answers;
        let cause = |name: &str, of: fn(&WorkerMetrics) -> &Counter| {
            let value = self.sum(|w| of(w).get());
            (vec![name.to_owned()], value as f64)
        };
        vec![
            counter(
                "etcd_edge_reads_shared_total",
                "Linearizable reads answered by one that several shared.",
                &[],
                self.plain(|w| &w.reads.shared),
            ),
            counter(
                "etcd_edge_reads_overtaken_total",
                "Serializable reads asked again for what is no older than what the client was shown.",
                &[],
                self.plain(|w| &w.reads.overtaken),
            ),
            gauge(
                "etcd_edge_cache_entries",
                "Answers kept.",
                &[],
                alone(answers.count.get() as u64),
            ),
            gauge(
                "etcd_edge_cache_bytes",
                "Bytes of memory that kept answers hold.",
                &[],
                alone(answers.bytes.get() as u64),
            ),
            gauge(
                "etcd_edge_cache_covers",
                "Kept answers that a watch proves right.",
                &[],
                self.plain(|w| &w.reads.covers),
            ),
            counter(
                "etcd_edge_cache_hits_total",
                "Serializable reads answered from what is kept.",
                &[],
                self.plain(|w| &w.reads.hits),
            ),
            counter(
                "etcd_edge_cache_misses_total",
                "Serializable reads that might have been answered from what is kept and were asked of etcd.",
                &[],
                self.plain(|w| &w.reads.misses),
            ),
            counter(
                "etcd_edge_cache_invalidated_total",
                "Kept answers that were found and not given, by cause.",
                &["cause"],
                vec![
                    cause("age", |w| &w.reads.too_old),
                    cause("written", |w| &w.reads.written),
                    cause("unsure", |w| &w.reads.unsure),
                    cause("shown", |w| &w.reads.behind),
                ],
            ),
            counter(
                "etcd_edge_cache_dropped_total",
                "Times all kept answers were dropped.",
                &[],
                alone(answers.drops.get()),
            ),
            counter(
                "etcd_edge_cache_renewed_total",
                "Reads for answers that were soon to be too old.",
                &[],
                self.plain(|w| &w.reads.renewed),
            ),
            counter(
                "etcd_edge_cache_audited_total",
                "Answers held against etcd after they were given.",
                &[],
                self.plain(|w| &w.reads.audited),
            ),
            counter(
                "etcd_edge_cache_differed_total",
                "Audited answers that differed from etcd's.",
                &[],
                self.plain(|w| &w.reads.differed),
            ),
            self.ages(),
            gauge(
                "etcd_grpc_proxy_cache_keys_total",
                "Answers kept.",
                &[],
                alone(answers.count.get() as u64),
            ),
            gauge(
                "etcd_grpc_proxy_cache_hits_total",
                "Serializable reads answered from what is kept.",
                &[],
                self.plain(|w| &w.reads.hits),
            ),
            gauge(
                "etcd_grpc_proxy_cache_misses_total",
                "Serializable reads that might have been answered from what is kept and were asked of etcd.",
                &[],
                self.plain(|w| &w.reads.misses),
            ),
        ]
    }

    /// How old answers were when they were given.
    fn ages(&self) -> Family {
        histogram(
            "etcd_edge_cache_age_seconds",
            "Age of kept answers when they were given.",
            &[],
            &AGES,
            vec![(vec![], self.fallen(|w| &w.reads.ages))],
        )
    }
}
