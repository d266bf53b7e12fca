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
                "Client connections closed at accept because there were too many.",
                &[],
                alone(refused),
            ),
            counter(
                "etcd_edge_handshakes_failed_total",
                "Client connections that ended before their first request.",
                &[],
                self.plain(|w| &w.handshakes_failed),
            ),
            gauge(
                "etcd_edge_connections",
                "Client connections open.",
                &[],
                self.plain(|w| &w.connections),
            ),
            gauge(
                "etcd_edge_page_connections",
                "Connections of --metrics-addr open.",
                &[],
                self.plain(|w| &w.page_connections),
            ),
            counter(
                "etcd_edge_page_connections_refused_total",
                "Connections of --metrics-addr closed at accept because there were too many.",
                &[],
                alone(pages_refused),
            ),
            counter(
                "etcd_edge_received_bytes_total",
                "Bytes of HTTP/2 from clients, as they are inside TLS.",
                &[],
                alone(self.sum(|w| w.traffic.received())),
            ),
            counter(
                "etcd_edge_sent_bytes_total",
                "Bytes of HTTP/2 to clients, as they are inside TLS.",
                &[],
                alone(self.sum(|w| w.traffic.sent())),
            ),
        ]
    }
}
