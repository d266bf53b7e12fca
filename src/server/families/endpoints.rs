//! The endpoints.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::MetricsCollector;
use super::make::{counter, label};
use crate::metrics::EndpointMetrics;

impl MetricsCollector {
    pub(super) fn endpoints(&self) -> Vec<MetricFamily> {
        let endpoints = self.0.endpoints.all();
        let per_endpoint = |of: fn(&EndpointMetrics) -> u64| {
            let series = |e: &Arc<EndpointMetrics>| (vec![label("endpoint", &e.name)], of(e));
            endpoints.iter().map(series).collect()
        };
        vec![
            counter(
                "etcd_edge_endpoint_picked_total",
                "Times the endpoint was picked to serve.",
                per_endpoint(|e| e.picked.get()),
            ),
            counter(
                "etcd_edge_endpoint_connects_total",
                "Connections to the endpoint that came up.",
                per_endpoint(|e| e.connects.get()),
            ),
            counter(
                "etcd_edge_endpoint_failures_total",
                "Dials and connections of the endpoint that failed.",
                per_endpoint(|e| e.failures.get()),
            ),
            counter(
                "etcd_edge_endpoint_ejections_total",
                "Times the endpoint was left out for doing worse than the others.",
                per_endpoint(|e| e.ejections.get()),
            ),
            counter(
                "etcd_edge_endpoint_requests_total",
                "Calls sent to the endpoint.",
                per_endpoint(|e| e.workers().map(|w| w.requests.get()).sum()),
            ),
        ]
    }
}
