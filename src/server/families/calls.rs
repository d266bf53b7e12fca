//! Clients' calls by method and code, as go-grpc shows them, and what became of them.

use prometheus::proto::{LabelPair, MetricFamily};

use super::MetricsCollector;
use super::make::{Sample, counter, gauge, label};
use crate::metrics::{Limit, MethodLabels};

impl MetricsCollector {
    pub(super) fn calls(&self) -> Vec<MetricFamily> {
        let limits = Limit::ALL.iter().map(|(limit, name)| {
            (
                vec![label("limit", name)],
                self.sum(|w| w.limits[*limit as usize].get()),
            )
        });
        vec![
            counter(
                "grpc_server_started_total",
                "Calls that arrived.",
                self.started(),
            ),
            counter(
                "grpc_server_handled_total",
                "Calls that ended, by code.",
                self.handled(),
            ),
            gauge(
                "etcd_edge_calls",
                "Calls open.",
                self.plain(|w| &w.open_calls),
            ),
            counter(
                "etcd_edge_retries_total",
                "Attempts at a call beyond its first.",
                self.plain(|w| &w.retries),
            ),
            counter(
                "etcd_edge_hedged_reads_total",
                "Silent reads that were also sent to another endpoint.",
                self.plain(|w| &w.hedges),
            ),
            counter(
                "etcd_edge_limit_hits_total",
                "Bounds that clients met.",
                limits.collect(),
            ),
            counter(
                "etcd_edge_records_dropped_total",
                "Calls whose log line or span was lost.",
                vec![
                    (vec![label("kind", "line")], self.0.records.lines.get()),
                    (vec![label("kind", "span")], self.0.records.spans.get()),
                ],
            ),
        ]
    }

    /// Only methods that were called, as go-grpc shows them.
    fn started(&self) -> Vec<Sample> {
        let methods = self.0.methods.iter().enumerate();
        methods
            .map(|(n, labels)| (call_labels(labels), self.sum(|w| w.calls[n].started.get())))
            .filter(|(_, value)| *value > 0)
            .collect()
    }

    fn handled(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (n, labels) in self.0.methods.iter().enumerate() {
            for (code, name) in self.0.code_names.iter().enumerate() {
                let value = self.sum(|w| w.calls[n].handled[code].get());
                if value > 0 {
                    let mut labels = call_labels(labels);
                    labels.insert(0, label("grpc_code", name));
                    samples.push((labels, value));
                }
            }
        }
        samples
    }
}

fn call_labels(labels: &MethodLabels) -> Vec<LabelPair> {
    vec![
        label("grpc_method", labels.method),
        label("grpc_service", labels.service),
        label("grpc_type", labels.kind),
    ]
}
