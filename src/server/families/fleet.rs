//! The families of proxies side by side: only where this one registers.

use prometheus::proto::MetricFamily;

use super::MetricsCollector;
use super::make::{counter, gauge};

impl MetricsCollector {
    pub(super) fn fleet(&self) -> Vec<MetricFamily> {
        let fleet = &self.0.fleet;
        if !fleet.is_shown() {
            return Vec::new();
        }
        let sample = |value: u64| vec![(vec![], value)];
        vec![
            gauge(
                "etcd_edge_fleet_registered",
                "Whether this proxy is registered: 1 or 0.",
                sample(fleet.is_registered().into()),
            ),
            gauge(
                "etcd_edge_fleet_members",
                "Proxies that are registered, as far as is known.",
                sample(fleet.members() as u64),
            ),
            counter(
                "etcd_edge_fleet_registrations_total",
                "Times this proxy was registered.",
                sample(fleet.registrations.get()),
            ),
            counter(
                "etcd_edge_fleet_registration_failures_total",
                "Steps of this proxy's registration that failed.",
                sample(fleet.failures.get()),
            ),
            counter(
                "etcd_edge_fleet_follow_failures_total",
                "Times that registered proxies could not be followed.",
                sample(fleet.follow_failures.get()),
            ),
        ]
    }
}
