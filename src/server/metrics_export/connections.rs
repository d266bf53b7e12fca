//! Metrics of client connections.

use super::MetricsCollector;
use super::family::{Family, counter, gauge, single};

impl MetricsCollector {
    pub(super) fn connections(&self) -> Vec<Family> {
        let refused = self.metrics.connections_refused.get();
        let admin_refused = self.metrics.admin_connections_refused.get();
        vec![
            counter(
                "etcd_edge_connections_accepted_total",
                "Client connections accepted.",
                &[],
                self.worker_sum(|w| &w.accepted),
            ),
            counter(
                "etcd_edge_connections_refused_total",
                "Client connections closed at accept because too many were open.",
                &[],
                single(refused),
            ),
            counter(
                "etcd_edge_handshake_failures_total",
                "Client connections closed before their first request.",
                &[],
                self.worker_sum(|w| &w.handshake_failures),
            ),
            gauge(
                "etcd_edge_connections",
                "Open client connections.",
                &[],
                self.worker_sum(|w| &w.connections),
            ),
            gauge(
                "etcd_edge_admin_connections",
                "Open connections to the listeners of --metrics-addr.",
                &[],
                self.worker_sum(|w| &w.admin_connections),
            ),
            counter(
                "etcd_edge_admin_connections_refused_total",
                "Connections to the listeners of --metrics-addr closed at accept because too many were open.",
                &[],
                single(admin_refused),
            ),
            counter(
                "etcd_edge_received_bytes_total",
                "HTTP/2 bytes received from clients, inside TLS.",
                &[],
                single(self.sum(|w| w.traffic.received())),
            ),
            counter(
                "etcd_edge_sent_bytes_total",
                "HTTP/2 bytes sent to clients, inside TLS.",
                &[],
                single(self.sum(|w| w.traffic.sent())),
            ),
        ]
    }
}
