//! Leases.

use super::MetricsCollector;
use super::family::{Family, counter, gauge};

impl MetricsCollector {
    pub(super) fn leases(&self) -> Vec<Family> {
        vec![
            gauge(
                "etcd_edge_lease_streams",
                "Streams of heartbeats of clients open.",
                &[],
                self.plain(|w| &w.lease.streams),
            ),
            gauge(
                "etcd_edge_lease_upstream_streams",
                "Streams of heartbeats to etcd open.",
                &[],
                self.plain(|w| &w.lease.upstream),
            ),
            counter(
                "etcd_edge_heartbeats_received_total",
                "Heartbeats from clients.",
                &[],
                self.plain(|w| &w.lease.received),
            ),
            counter(
                "etcd_edge_heartbeats_sent_total",
                "Heartbeats to etcd, those sent again included.",
                &[],
                self.plain(|w| &w.lease.sent),
            ),
            counter(
                "etcd_edge_heartbeats_merged_total",
                "Heartbeats of clients that shared one to etcd with an earlier one.",
                &[],
                self.plain(|w| &w.lease.merged),
            ),
            counter(
                "etcd_edge_heartbeats_resent_total",
                "Heartbeats sent to etcd again.",
                &[],
                self.plain(|w| &w.lease.resent),
            ),
            counter(
                "etcd_edge_heartbeats_expired_total",
                "Answers of etcd that a lease is no more.",
                &[],
                self.plain(|w| &w.lease.expired),
            ),
            counter(
                "etcd_edge_heartbeats_aside_total",
                "Heartbeats that were put aside since they blocked others.",
                &[],
                self.plain(|w| &w.lease.aside),
            ),
        ]
    }
}
