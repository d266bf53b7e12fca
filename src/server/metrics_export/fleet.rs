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
                "1 if this proxy is registered, else 0.",
                &[],
                alone(fleet.is_registered().into()),
            ),
            gauge(
                "etcd_edge_fleet_members",
                "Registered proxies that this proxy knows.",
                &[],
                alone(fleet.members() as u64),
            ),
            counter(
                "etcd_edge_fleet_registrations_total",
                "Registrations of this proxy.",
                &[],
                alone(fleet.registrations.get()),
            ),
            counter(
                "etcd_edge_fleet_registration_failures_total",
                "Failed registration steps of this proxy.",
                &[],
                alone(fleet.failures.get()),
            ),
            counter(
                "etcd_edge_fleet_watch_failures_total",
                "Failures of the watch of registered proxies.",
                &[],
                alone(fleet.watch_failures.get()),
            ),
        ]
    }
}
