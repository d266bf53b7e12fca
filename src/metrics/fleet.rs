//! Proxies side by side.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::counter::SharedCounter;

/// The fleet, where this proxy registers.
#[derive(Debug, Default)]
pub struct FleetMetrics {
    /// It does.
    shown: AtomicBool,
    registered: AtomicBool,
    members: AtomicUsize,
    /// Times it was registered.
    pub registrations: SharedCounter,
    /// Steps of its registration that failed.
    pub failures: SharedCounter,
    /// Times that others could not be followed.
    pub watch_failures: SharedCounter,
}

impl FleetMetrics {
    /// Whether any of this is to be shown.
    pub fn show(&self, shown: bool) {
        self.shown.store(shown, Ordering::Relaxed);
    }

    /// Whether any of this is to be shown.
    pub fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }

    /// Whether this proxy is registered now.
    pub fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    /// Whether this proxy is registered now.
    pub fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    /// Proxies that are registered, as far as is known.
    pub fn set_members(&self, members: usize) {
        self.members.store(members, Ordering::Relaxed);
    }

    /// Proxies that are registered, as far as is known.
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }
}
