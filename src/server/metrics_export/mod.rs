//! How what is counted is shown to Prometheus, and described to people.

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

/// Lets a registry of the `prometheus` crate collect the blocks.
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
        let parts = self.parts().into_iter();
        parts
            .flat_map(|(_, families)| families)
            .filter_map(Family::shown)
            .collect()
    }
}

impl MetricsCollector {
    /// Of these counters, and of how these endpoints are.
    pub fn new(metrics: Arc<Metrics>, endpoints: Arc<Endpoints>) -> MetricsCollector {
        MetricsCollector { metrics, endpoints }
    }

    /// Every family in Markdown, under headings. What is shown only where it is used is there all the same.
    pub fn reference(&self) -> String {
        let mut text = String::new();
        let mut part = |title: &str, lines: String| {
            let head = "| name | type | labels | meaning |\n|---|---|---|---|\n";
            text += &format!("\n## {title}\n\n{head}{lines}");
        };
        for (title, families) in self.parts() {
            part(title, families.iter().map(Family::line).collect());
        }
        let process = ProcessCollector::for_self().collect();
        let line = |family: &MetricFamily| {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                _ => "gauge",
            };
            format!("| `{}` | {kind} | | {} |\n", family.name(), family.help())
        };
        part("Process", process.iter().map(line).collect());
        text
    }

    /// Everything, under headings.
    fn parts(&self) -> [(&'static str, Vec<Family>); 9] {
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

    fn plain(&self, of: fn(&WorkerMetrics) -> &Counter) -> Vec<Sample> {
        family::alone(self.sum(|w| of(w).get()))
    }

    fn fallen<const N: usize>(
        &self,
        of: impl Fn(&WorkerMetrics) -> &Histogram<N>,
    ) -> HistogramSample {
        let mut counts = vec![0; N + 1];
        let mut sum = 0;
        for spread in self.metrics.workers().map(&of) {
            let all = counts.iter_mut().zip(spread.counts());
            all.for_each(|(sum, count): (&mut u64, u64)| *sum = sum.wrapping_add(count));
            sum = spread.sum().wrapping_add(sum);
        }
        HistogramSample { counts, sum }
    }
}
