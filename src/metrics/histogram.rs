//! Histograms of durations.

use std::time::Duration;

use super::counter::Counter;

/// Histogram of durations with `N` bounds. The bounds are not stored: all users pass the same
/// bounds, in microseconds and increasing.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    buckets: [Counter; N],
    /// Durations above the last bound.
    overflow: Counter,
    /// Sum of all durations, in microseconds.
    sum: Counter,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Histogram<N> {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            overflow: Counter::default(),
            sum: Counter::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Records a duration. Only for the owning thread.
    pub fn observe(&self, bounds: &[u64; N], duration: Duration) {
        let micros = micros(duration);
        let bucket = bounds.partition_point(|bound| *bound < micros);
        self.buckets.get(bucket).unwrap_or(&self.overflow).inc();
        self.sum.set(self.sum.get().wrapping_add(micros));
    }

    /// Returns the number of durations per bucket, not cumulative. The last bucket is above all
    /// bounds.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        let all = self.buckets.iter().chain([&self.overflow]);
        all.map(Counter::get)
    }

    /// Returns the sum of all durations, in microseconds.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// Converts to microseconds. Avoids the 128-bit arithmetic of `as_micros`.
fn micros(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(duration.subsec_micros().into())
}

#[cfg(test)]
mod tests {
    use super::Histogram;
    use std::time::Duration;

    #[test]
    fn upper_bounds_are_inclusive() {
        let bounds = [10, 1_000, 2_000_000];
        let histogram = Histogram::default();
        for micros in [0, 10, 11, 1_000, 1_001, 2_000_000, 2_000_001] {
            histogram.observe(&bounds, Duration::from_micros(micros));
        }
        // Fractions of a microsecond are cut off.
        histogram.observe(&bounds, Duration::from_nanos(10_999));
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [3, 2, 2, 1]);
        assert_eq!(histogram.sum(), 4_002_033);
        histogram.observe(&bounds, Duration::MAX);
        assert_eq!(histogram.counts().last(), Some(2));
    }
}
