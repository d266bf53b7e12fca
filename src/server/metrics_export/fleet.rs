//! The families of proxies side by side: only where this one registers.

use super::MetricsCollector;
use super::family::{Family, alone, counter, gauge};

impl MetricsCollector {
    pub(super) fn fleet(&self) -> Vec<Family> {
        let fleet = &self.metrics.fleet;
        let alone = |value| match fleet.is_shown() {
            true => alone(value),
            false => Vec::new(),
        };
        vec![
            gauge(
                "etcd_edge_fleet_registered",
                "Whether this proxy is registered: 1 or 0.",
                &[],
                alone(fleet.is_registered().into()),
            ),
            gauge(
                "etcd_edge_fleet_members",
                "Proxies that are registered, as far as is known.",
                &[],
                alone(fleet.members() as u64),
            ),
            counter(
                "etcd_edge_fleet_registrations_total",
                "Times this proxy was registered.",
                &[],
                alone(fleet.registrations.get()),
            ),
            counter(
                "etcd_edge_fleet_registration_failures_total",
                "Steps of this proxy's registration that failed.",
                &[],
                alone(fleet.failures.get()),
            ),
            counter(
                "etcd_edge_fleet_follow_failures_total",
                "Times that registered proxies could not be followed.",
                &[],
                alone(fleet.follow_failures.get()),
            ),
        ]
    }
}
