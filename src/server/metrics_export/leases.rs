//! Metrics of leases.

use super::MetricsCollector;
use super::family::{Family, counter, gauge};

impl MetricsCollector {
    pub(super) fn leases(&self) -> Vec<Family> {
        vec![
            gauge(
                "etcd_edge_lease_streams",
                "Open lease keepalive streams of clients.",
                &[],
                self.worker_sum(|w| &w.lease.streams),
            ),
            gauge(
                "etcd_edge_lease_upstream_streams",
                "Open lease keepalive streams to etcd.",
                &[],
                self.worker_sum(|w| &w.lease.upstream),
            ),
            counter(
                "etcd_edge_heartbeats_received_total",
                "Lease heartbeats received from clients.",
                &[],
                self.worker_sum(|w| &w.lease.received),
            ),
            counter(
                "etcd_edge_heartbeats_sent_total",
                "Lease heartbeats sent to etcd, resent ones included.",
                &[],
                self.worker_sum(|w| &w.lease.sent),
            ),
            counter(
                "etcd_edge_heartbeats_merged_total",
                "Client heartbeats merged into an upstream heartbeat of an earlier one.",
                &[],
                self.worker_sum(|w| &w.lease.merged),
            ),
            counter(
                "etcd_edge_heartbeats_resent_total",
                "Lease heartbeats resent to etcd after a stream was lost.",
                &[],
                self.worker_sum(|w| &w.lease.resent),
            ),
            counter(
                "etcd_edge_heartbeats_expired_total",
                "Heartbeat responses of etcd for expired leases (TTL 0).",
                &[],
                self.worker_sum(|w| &w.lease.expired),
            ),
            counter(
                "etcd_edge_heartbeats_isolated_total",
                "Heartbeats moved to a stream of their own because they blocked others.",
                &[],
                self.worker_sum(|w| &w.lease.isolated),
            ),
        ]
    }
}
