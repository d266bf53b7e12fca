//! Durations told apart by bounds, for histograms.

use std::time::Duration;

use super::counter::Counter;

/// How often durations fell between which of `N` bounds. Whoever adds and whoever shows name the same
/// bounds, in microseconds and growing.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    steps: [Counter; N],
    beyond: Counter,
    /// In microseconds.
    sum: Counter,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Histogram<N> {
        Histogram {
            steps: std::array::from_fn(|_| Counter::default()),
            beyond: Counter::default(),
            sum: Counter::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// One more. For the owning thread only.
    pub fn add(&self, bounds: &[u64; N], duration: Duration) {
        let micros = micros(duration);
        let place = bounds.partition_point(|bound| *bound < micros);
        self.steps.get(place).unwrap_or(&self.beyond).inc();
        self.sum.set(self.sum.get().wrapping_add(micros));
    }

    /// How many fell up to each bound and above the one before, and how many beyond the last.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        let all = self.steps.iter().chain([&self.beyond]);
        all.map(Counter::get)
    }

    /// Of all of them, in microseconds.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// Without the wide arithmetic of `as_micros`.
fn micros(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(duration.subsec_micros().into())
}

#[cfg(test)]
mod tests {
    use super::Histogram;
    use std::time::Duration;

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        let bounds = [10, 1_000, 2_000_000];
        let spread = Histogram::default();
        for micros in [0, 10, 11, 1_000, 1_001, 2_000_000, 2_000_001] {
            spread.add(&bounds, Duration::from_micros(micros));
        }
        // What is below a microsecond is left out.
        spread.add(&bounds, Duration::from_nanos(10_999));
        assert_eq!(spread.counts().collect::<Vec<_>>(), [3, 2, 2, 1]);
        assert_eq!(spread.sum(), 4_002_033);
        spread.add(&bounds, Duration::MAX);
        assert_eq!(spread.counts().last(), Some(2));
    }
}
