//! Counters and gauges without locks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counter or gauge that only one thread writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only for the owning thread: the addition is not atomic.
    pub fn inc(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// Subtracts one, for gauges. Only for the owning thread.
    pub fn dec(&self) {
        self.0.store(self.get().wrapping_sub(1), Ordering::Relaxed);
    }

    /// Adds `more`. Only for the owning thread.
    pub fn add(&self, more: usize) {
        self.0
            .store(self.get().wrapping_add(more as u64), Ordering::Relaxed);
    }

    /// Sets a value that is counted elsewhere. Only for the owning thread.
    pub fn set(&self, value: impl TryInto<u64>) {
        let value = value.try_into().unwrap_or(u64::MAX);
        self.0.store(value, Ordering::Relaxed);
    }

    /// Returns the value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counter that any thread may increment. For rare events.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gauge that several threads change.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// Changes the share of one item from `from` to `to`.
    pub fn change(&self, from: usize, to: usize) {
        // The difference wraps, and so does the sum.
        self.0.fetch_add(to.wrapping_sub(from), Ordering::Relaxed);
    }

    /// Returns the value.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
