//! Clients' connections.

use super::MetricsCollector;
use super::family::{Family, alone, counter, gauge};

impl MetricsCollector {
    pub(super) fn connections(&self) -> Vec<Family> {
        let refused = self.metrics.connections_refused.get();
        let pages_refused = self.metrics.page_connections_refused.get();
        vec![
            counter(
                "etcd_edge_connections_accepted_total",
                "Client connections accepted.",
                &[],
                self.plain(|w| &w.accepted),
            ),
            counter(
                "etcd_edge_connections_refused_total",
                "Client connections closed at accept because too many were open.",
                &[],
                alone(refused),
            ),
            counter(
                "etcd_edge_handshake_failures_total",
                "Client connections closed before their first request.",
                &[],
                self.plain(|w| &w.handshake_failures),
            ),
            gauge(
                "etcd_edge_connections",
                "Open client connections.",
                &[],
                self.plain(|w| &w.connections),
            ),
            gauge(
                "etcd_edge_admin_connections",
                "Open connections to the listeners of --metrics-addr.",
                &[],
                self.plain(|w| &w.page_connections),
            ),
            counter(
                "etcd_edge_admin_connections_refused_total",
                "Connections to the listeners of --metrics-addr closed at accept because too many were open.",
                &[],
                alone(pages_refused),
            ),
            counter(
                "etcd_edge_received_bytes_total",
                "HTTP/2 bytes received from clients, inside TLS.",
                &[],
                alone(self.sum(|w| w.traffic.received())),
            ),
            counter(
                "etcd_edge_sent_bytes_total",
                "HTTP/2 bytes sent to clients, inside TLS.",
                &[],
                alone(self.sum(|w| w.traffic.sent())),
            ),
        ]
    }
}
