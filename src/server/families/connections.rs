//! Clients' connections.

use prometheus::proto::MetricFamily;

use super::MetricsCollector;
use super::make::{counter, gauge};

impl MetricsCollector {
    pub(super) fn connections(&self) -> Vec<MetricFamily> {
        let refused = self.0.connections_refused.get();
        vec![
            counter(
                "etcd_edge_connections_accepted_total",
                "Client connections accepted.",
                self.plain(|w| &w.accepted),
            ),
            counter(
                "etcd_edge_connections_refused_total",
                "Client connections closed at accept because there were too many.",
                vec![(vec![], refused)],
            ),
            counter(
                "etcd_edge_handshakes_failed_total",
                "Client connections that ended before their first request.",
                self.plain(|w| &w.handshakes_failed),
            ),
            gauge(
                "etcd_edge_connections",
                "Client connections open.",
                self.plain(|w| &w.connections),
            ),
        ]
    }
}
