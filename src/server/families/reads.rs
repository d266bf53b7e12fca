//! Reads that are shared, and answers that are kept.

use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use super::MetricsCollector;
use super::make::{counter, gauge, label};
use crate::metrics::{AGES, Count, WorkerMetrics};

impl MetricsCollector {
    pub(super) fn reads(&self) -> Vec<MetricFamily> {
        let answers = &self.0.answers;
        let cause = |name, of: fn(&WorkerMetrics) -> &Count| {
            (vec![label("cause", name)], self.sum(|w| of(w).get()))
        };
        vec![
            counter(
                "etcd_edge_reads_shared_total",
                "Linearizable reads answered by one that several shared.",
                self.plain(|w| &w.reads.shared),
            ),
            counter(
                "etcd_edge_reads_overtaken_total",
                "Serializable reads asked again for what is no older than what the client was shown.",
                self.plain(|w| &w.reads.overtaken),
            ),
            gauge(
                "etcd_edge_cache_entries",
                "Answers kept.",
                vec![(vec![], answers.count.get() as u64)],
            ),
            gauge(
                "etcd_edge_cache_bytes",
                "Bytes of memory that kept answers hold.",
                vec![(vec![], answers.bytes.get() as u64)],
            ),
            gauge(
                "etcd_edge_cache_covers",
                "Kept answers that a watch proves right.",
                self.plain(|w| &w.reads.covers),
            ),
            counter(
                "etcd_edge_cache_hits_total",
                "Serializable reads answered from what is kept.",
                self.plain(|w| &w.reads.hits),
            ),
            counter(
                "etcd_edge_cache_misses_total",
                "Serializable reads that might have been answered from what is kept and were asked of etcd.",
                self.plain(|w| &w.reads.misses),
            ),
            counter(
                "etcd_edge_cache_invalidated_total",
                "Kept answers that were found and not given, by cause.",
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
                vec![(vec![], answers.drops.get())],
            ),
            counter(
                "etcd_edge_cache_renewed_total",
                "Reads for answers that were soon to be too old.",
                self.plain(|w| &w.reads.renewed),
            ),
            counter(
                "etcd_edge_cache_audited_total",
                "Answers held against etcd after they were given.",
                self.plain(|w| &w.reads.audited),
            ),
            counter(
                "etcd_edge_cache_differed_total",
                "Audited answers that differed from etcd's.",
                self.plain(|w| &w.reads.differed),
            ),
            self.ages(),
            gauge(
                "etcd_grpc_proxy_cache_keys_total",
                "Answers kept.",
                vec![(vec![], answers.count.get() as u64)],
            ),
            gauge(
                "etcd_grpc_proxy_cache_hits_total",
                "Serializable reads answered from what is kept.",
                self.plain(|w| &w.reads.hits),
            ),
            gauge(
                "etcd_grpc_proxy_cache_misses_total",
                "Serializable reads that might have been answered from what is kept and were asked of etcd.",
                self.plain(|w| &w.reads.misses),
            ),
        ]
    }

    /// How old answers were when they were given.
    fn ages(&self) -> MetricFamily {
        let mut histogram = Histogram::default();
        let mut count = 0;
        let mut buckets = Vec::new();
        for (n, bound) in AGES.iter().enumerate() {
            count += self.sum(|w| w.reads.ages[n].get());
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(seconds(*bound));
            buckets.push(bucket);
        }
        histogram.set_bucket(buckets);
        count += self.sum(|w| w.reads.ages[AGES.len()].get());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(seconds(self.sum(|w| w.reads.age_sum.get())));
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name("etcd_edge_cache_age_seconds".to_owned());
        family.set_help("Age of kept answers when they were given.".to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.mut_metric().push(metric);
        family
    }
}

/// Microseconds in seconds.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
