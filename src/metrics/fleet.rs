//! Metrics of the fleet.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::counter::SharedCounter;

/// Metrics of the fleet, exported if this proxy registers.
#[derive(Debug, Default)]
pub struct FleetMetrics {
    /// This proxy registers, so the metrics are exported.
    enabled: AtomicBool,
    registered: AtomicBool,
    members: AtomicUsize,
    /// Registrations of this proxy.
    pub registrations: SharedCounter,
    /// Failed registration steps.
    pub failures: SharedCounter,
    /// Failures of the watch of registered proxies.
    pub watch_failures: SharedCounter,
}

impl FleetMetrics {
    /// Sets whether the metrics are exported.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Returns whether the metrics are exported.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Sets whether this proxy is registered.
    pub fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    /// Returns whether this proxy is registered.
    pub fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    /// Sets the number of registered proxies that this proxy knows.
    pub fn set_members(&self, members: usize) {
        self.members.store(members, Ordering::Relaxed);
    }

    /// Returns the number of registered proxies that this proxy knows.
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }
}
