//! The endpoints.

use std::sync::Arc;

use super::MetricsCollector;
use super::family::{Family, Sample, counter, gauge};
use crate::metrics::{EndpointCalls, EndpointMetrics};
use crate::state_machine::picker::Standing;

/// What an endpoint may be, each with its name.
const STATES: [&str; 5] = ["serves", "shares", "ready", "rests", "left_out"];

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
                "1 for what the endpoint is now: serves (all calls), shares (them with others), ready, rests (after a failure), left_out (for doing worse than the others).",
                &["endpoint", "state"],
                self.states(),
            ),
            counter(
                "etcd_edge_endpoint_picked_total",
                "Times the endpoint was picked to serve.",
                ENDPOINT,
                per_endpoint(|e| e.picked.get()),
            ),
            counter(
                "etcd_edge_endpoint_connects_total",
                "Connections to the endpoint that came up.",
                ENDPOINT,
                per_endpoint(|e| e.connects.get()),
            ),
            counter(
                "etcd_edge_endpoint_failures_total",
                "Dials and connections of the endpoint that failed.",
                ENDPOINT,
                per_endpoint(|e| e.failures.get()),
            ),
            counter(
                "etcd_edge_endpoint_ejections_total",
                "Times the endpoint was left out for doing worse than the others.",
                ENDPOINT,
                per_endpoint(|e| e.ejections.get()),
            ),
            counter(
                "etcd_edge_endpoint_requests_total",
                "Calls sent to the endpoint.",
                ENDPOINT,
                summed(|w| w.requests.get()),
            ),
            gauge(
                "etcd_edge_endpoint_connections",
                "Connections to the endpoint open.",
                ENDPOINT,
                summed(|w| w.connections.get()),
            ),
            gauge(
                "etcd_edge_endpoint_streams",
                "Streams to the endpoint open: calls, watches, heartbeats.",
                ENDPOINT,
                summed(|w| w.streams.get()),
            ),
            counter(
                "etcd_edge_endpoint_received_bytes_total",
                "Bytes of HTTP/2 from the endpoint, as they are inside TLS.",
                ENDPOINT,
                summed(|w| w.traffic.received()),
            ),
            counter(
                "etcd_edge_endpoint_sent_bytes_total",
                "Bytes of HTTP/2 to the endpoint, as they are inside TLS.",
                ENDPOINT,
                summed(|w| w.traffic.sent()),
            ),
        ]
    }

    /// Each endpoint in each state: 1 in its own, else 0.
    fn states(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (target, standing) in self.endpoints.standings() {
            let own = match standing {
                Standing::Serves => 0,
                Standing::Shares(_) => 1,
                Standing::Ready => 2,
                Standing::Rests => 3,
                Standing::LeftOut => 4,
            };
            for (n, state) in STATES.iter().enumerate() {
                let labels = vec![target.metrics.name.clone(), (*state).to_owned()];
                samples.push((labels, f64::from(u8::from(n == own))));
            }
        }
        samples
    }
}
