//! Metrics of the build and of the worker threads.

use super::MetricsCollector;
use super::family::{Family, gauge, single};

impl MetricsCollector {
    pub(super) fn build(&self) -> Vec<Family> {
        let version = vec![env!("CARGO_PKG_VERSION").to_owned()];
        vec![
            gauge(
                "etcd_edge_build_info",
                "Constant 1, labeled with the version.",
                &["version"],
                vec![(version, 1.0)],
            ),
            gauge(
                "etcd_edge_workers",
                "Worker threads.",
                &[],
                single(self.metrics.workers().count() as u64),
            ),
        ]
    }
}
