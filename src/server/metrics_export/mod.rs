//! Export of the metrics: to Prometheus, and as the reference page of the documentation.

mod build;
mod calls;
mod connections;
mod endpoints;
mod family;
mod fleet;
mod leases;
mod reads;
mod tls;
mod watches;

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{MetricFamily, MetricType};

use crate::metrics::{Counter, Histogram, Metrics, WorkerMetrics};
use crate::upstream::endpoints::Endpoints;
use family::{Family, HistogramSample, Sample};

/// Collector of all metrics for a registry of the `prometheus` crate.
#[derive(Clone)]
pub struct MetricsCollector {
    metrics: Arc<Metrics>,
    endpoints: Arc<Endpoints>,
}

impl Collector for MetricsCollector {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let sections = self.sections().into_iter();
        sections
            .flat_map(|(_, families)| families)
            .filter_map(Family::into_proto)
            .collect()
    }
}

impl MetricsCollector {
    /// Creates a collector of `metrics` and of the states of `endpoints`.
    pub fn new(metrics: Arc<Metrics>, endpoints: Arc<Endpoints>) -> MetricsCollector {
        MetricsCollector { metrics, endpoints }
    }

    /// Returns the reference of all metrics in Markdown, one section per area. Metrics that are
    /// exported only if their feature is configured are included.
    pub fn reference(&self) -> String {
        let mut text = String::new();
        let mut section = |title: &str, rows: String| {
            let head = "| name | type | labels | meaning |\n|---|---|---|---|\n";
            text += &format!("\n## {title}\n\n{head}{rows}");
        };
        for (title, families) in self.sections() {
            section(title, families.iter().map(Family::markdown_row).collect());
        }
        let process = ProcessCollector::for_self().collect();
        let row = |family: &MetricFamily| {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                _ => "gauge",
            };
            format!("| `{}` | {kind} | | {} |\n", family.name(), family.help())
        };
        section("Process", process.iter().map(row).collect());
        text
    }

    /// Returns all metrics with the titles of their sections.
    fn sections(&self) -> [(&'static str, Vec<Family>); 9] {
        [
            ("Calls", self.calls()),
            ("Client connections", self.connections()),
            ("TLS", self.tls()),
            ("Endpoints", self.endpoints()),
            ("Watches", self.watches()),
            ("Leases", self.leases()),
            ("Reads and cache", self.reads()),
            ("Fleet", self.fleet()),
            ("Build", self.build()),
        ]
    }

    fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.metrics.workers().map(of).fold(0, u64::wrapping_add)
    }

    fn worker_sum(&self, of: fn(&WorkerMetrics) -> &Counter) -> Vec<Sample> {
        family::single(self.sum(|w| of(w).get()))
    }

    fn histogram_sample<const N: usize>(
        &self,
        of: impl Fn(&WorkerMetrics) -> &Histogram<N>,
    ) -> HistogramSample {
        let mut counts = vec![0; N + 1];
        let mut sum = 0;
        for histogram in self.metrics.workers().map(&of) {
            let all = counts.iter_mut().zip(histogram.counts());
            all.for_each(|(sum, count): (&mut u64, u64)| *sum = sum.wrapping_add(count));
            sum = histogram.sum().wrapping_add(sum);
        }
        HistogramSample { counts, sum }
    }
}
