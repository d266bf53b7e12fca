//! Metrics of the endpoints.

use std::sync::Arc;

use super::MetricsCollector;
use super::family::{Family, Sample, counter, gauge};
use crate::metrics::{EndpointCalls, EndpointMetrics};
use crate::state_machine::picker::EndpointState;

/// Label values of the state of an endpoint.
const STATES: [&str; 5] = ["active", "balanced", "ready", "backoff", "ejected"];

const ENDPOINT: &[&str] = &["endpoint"];

impl MetricsCollector {
    pub(super) fn endpoints(&self) -> Vec<Family> {
        let endpoints = self.metrics.endpoints.all();
        let per_endpoint = |of: fn(&EndpointMetrics) -> u64| -> Vec<Sample> {
            let series = |e: &Arc<EndpointMetrics>| (vec![e.name.clone()], of(e) as f64);
            endpoints.iter().map(series).collect()
        };
        let summed = |of: fn(&EndpointCalls) -> u64| -> Vec<Sample> {
            let series = |e: &Arc<EndpointMetrics>| {
                let sum = e.workers().map(of).fold(0, u64::wrapping_add);
                (vec![e.name.clone()], sum as f64)
            };
            endpoints.iter().map(series).collect()
        };
        vec![
            gauge(
                "etcd_edge_endpoint_state",
                "1 for the current state of the endpoint, 0 for the others: active (receives all calls), balanced (receives a share of the calls), ready (standby), backoff (failed, waiting to redial), ejected (by outlier detection).",
                &["endpoint", "state"],
                self.states(),
            ),
            counter(
                "etcd_edge_endpoint_picked_total",
                "Times the endpoint was picked to receive all calls.",
                ENDPOINT,
                per_endpoint(|e| e.picked.get()),
            ),
            counter(
                "etcd_edge_endpoint_connects_total",
                "Connections established to the endpoint.",
                ENDPOINT,
                per_endpoint(|e| e.connects.get()),
            ),
            counter(
                "etcd_edge_endpoint_failures_total",
                "Failed dials and lost connections of the endpoint.",
                ENDPOINT,
                per_endpoint(|e| e.failures.get()),
            ),
            counter(
                "etcd_edge_endpoint_ejections_total",
                "Times outlier detection ejected the endpoint.",
                ENDPOINT,
                per_endpoint(|e| e.ejections.get()),
            ),
            counter(
                "etcd_edge_endpoint_requests_total",
                "Calls sent to the endpoint, those of the proxy itself included.",
                ENDPOINT,
                summed(|w| w.requests.get()),
            ),
            gauge(
                "etcd_edge_endpoint_connections",
                "Open connections to the endpoint.",
                ENDPOINT,
                summed(|w| w.connections.get()),
            ),
            gauge(
                "etcd_edge_endpoint_streams",
                "Open HTTP/2 streams to the endpoint: calls, watches and lease keepalives.",
                ENDPOINT,
                summed(|w| w.streams.get()),
            ),
            counter(
                "etcd_edge_endpoint_received_bytes_total",
                "HTTP/2 bytes received from the endpoint, inside TLS.",
                ENDPOINT,
                summed(|w| w.traffic.received()),
            ),
            counter(
                "etcd_edge_endpoint_sent_bytes_total",
                "HTTP/2 bytes sent to the endpoint, inside TLS.",
                ENDPOINT,
                summed(|w| w.traffic.sent()),
            ),
        ]
    }

    /// Returns one sample per endpoint and state: 1 for the current state, else 0.
    fn states(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (target, state) in self.endpoints.endpoint_states() {
            let current = match state {
                EndpointState::Active => 0,
                EndpointState::Balanced(_) => 1,
                EndpointState::Ready => 2,
                EndpointState::Backoff => 3,
                EndpointState::Ejected => 4,
            };
            for (n, name) in STATES.iter().enumerate() {
                let labels = vec![target.metrics.name.clone(), (*name).to_owned()];
                samples.push((labels, f64::from(u8::from(n == current))));
            }
        }
        samples
    }
}
