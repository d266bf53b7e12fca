//! Metrics of the fleet. Exported only if this proxy registers.

use super::MetricsCollector;
use super::family::{Family, counter, gauge, single};

impl MetricsCollector {
    pub(super) fn fleet(&self) -> Vec<Family> {
        let fleet = &self.metrics.fleet;
        let single = |value| match fleet.is_enabled() {
            true => single(value),
            false => Vec::new(),
        };
        vec![
            gauge(
                "etcd_edge_fleet_registered",
                "1 if this proxy is registered, else 0.",
                &[],
                single(fleet.is_registered().into()),
            ),
            gauge(
                "etcd_edge_fleet_members",
                "Registered proxies that this proxy knows.",
                &[],
                single(fleet.members() as u64),
            ),
            counter(
                "etcd_edge_fleet_registrations_total",
                "Registrations of this proxy.",
                &[],
                single(fleet.registrations.get()),
            ),
            counter(
                "etcd_edge_fleet_registration_failures_total",
                "Failed registration steps of this proxy.",
                &[],
                single(fleet.failures.get()),
            ),
            counter(
                "etcd_edge_fleet_watch_failures_total",
                "Failures of the watch of registered proxies.",
                &[],
                single(fleet.watch_failures.get()),
            ),
        ]
    }
}
