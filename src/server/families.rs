//! How what is counted is shown to Prometheus.

mod calls;
mod connections;
mod endpoints;
mod fleet;
mod leases;
mod make;
mod reads;
mod watches;

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::metrics::{Count, Metrics, WorkerMetrics};
use make::Sample;

/// Lets a registry of the `prometheus` crate collect the blocks.
#[derive(Debug, Clone)]
pub(super) struct MetricsCollector(pub(super) Arc<Metrics>);

impl Collector for MetricsCollector {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let parts = [
            self.calls(),
            self.connections(),
            self.endpoints(),
            self.watches(),
            self.leases(),
            self.reads(),
            self.fleet(),
        ];
        parts
            .into_iter()
            .flatten()
            .filter(|f| !f.get_metric().is_empty())
            .collect()
    }
}

impl MetricsCollector {
    fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.0.workers().map(of).fold(0, u64::wrapping_add)
    }

    fn plain(&self, of: fn(&WorkerMetrics) -> &Count) -> Vec<Sample> {
        vec![(vec![], self.sum(|w| of(w).get()))]
    }
}
