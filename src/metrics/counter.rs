//! Counters and gauges: plain numbers, written without a lock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A counter with one writing thread, or a gauge of one.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more. For the owning thread only: not an atomic addition.
    pub fn inc(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// One less, for gauges. For the owning thread only.
    pub fn dec(&self) {
        self.0.store(self.get().wrapping_sub(1), Ordering::Relaxed);
    }

    /// So many more. For the owning thread only.
    pub fn add(&self, more: usize) {
        self.0
            .store(self.get().wrapping_add(more as u64), Ordering::Relaxed);
    }

    /// What is counted elsewhere. For the owning thread only.
    pub fn set(&self, value: impl TryInto<u64>) {
        let value = value.try_into().unwrap_or(u64::MAX);
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter that any thread may raise; for what is rare.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge that several threads move.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// What was of one size is of another.
    pub fn change(&self, from: usize, to: usize) {
        // Wraps, and wraps back.
        self.0.fetch_add(to.wrapping_sub(from), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
