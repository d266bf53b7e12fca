//! Popularity of a cache entry: whether it is requested often enough for a watch (R2).

use std::time::Instant;

use crate::limits;

/// Request rate of one cache entry. It continues when another response replaces the entry's.
#[derive(Debug)]
pub struct Popularity {
    /// Start of the current interval.
    since: Instant,
    /// Requests in the current interval.
    asked: u32,
    /// Consecutive intervals with enough requests.
    spans: u32,
    /// A caller was notified in the current interval.
    told: bool,
    /// Requests since the last [`Popularity::take_count`].
    untaken: u32,
}

impl Popularity {
    /// Creates the state of an entry without requests.
    pub fn new(now: Instant) -> Popularity {
        Popularity {
            since: now,
            asked: 0,
            spans: 0,
            told: false,
            untaken: 0,
        }
    }

    /// Counts a request. Returns whether the entry is popular.
    pub fn ask(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        if passed >= limits::CACHE_HOT_INTERVAL {
            let often =
                self.asked >= limits::CACHE_HOT_REQUESTS && passed < 2 * limits::CACHE_HOT_INTERVAL;
            self.spans = if often {
                self.spans.saturating_add(1)
            } else {
                0
            };
            self.since = now;
            self.asked = 0;
            self.told = false;
        }
        self.asked = self.asked.saturating_add(1);
        self.untaken = self.untaken.saturating_add(1);
        self.spans >= limits::CACHE_HOT_INTERVAL_COUNT
    }

    /// Returns true once per interval: this caller must request a watch.
    pub fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Returns the number of requests since the last call.
    pub fn take(&mut self) -> u32 {
        std::mem::take(&mut self.untaken)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sends `count` requests within an interval. Returns for how many the entry was popular.
    fn span(heat: &mut Popularity, begin: Instant, count: u32) -> usize {
        let step = limits::CACHE_HOT_INTERVAL / (count + 1);
        (0..count).filter(|n| heat.ask(begin + step * *n)).count()
    }

    #[test]
    fn is_popular_after_consecutive_busy_intervals() {
        let begin = Instant::now();
        let mut heat = Popularity::new(begin);
        let at = |n: u32| begin + limits::CACHE_HOT_INTERVAL * n;
        for n in 0..limits::CACHE_HOT_INTERVAL_COUNT {
            assert_eq!(span(&mut heat, at(n), limits::CACHE_HOT_REQUESTS), 0);
        }
        let n = limits::CACHE_HOT_INTERVAL_COUNT;
        assert!(span(&mut heat, at(n), limits::CACHE_HOT_REQUESTS) > 0);
        // An interval with too few requests ends the popularity.
        assert!(span(&mut heat, at(n + 1), limits::CACHE_HOT_REQUESTS - 1) > 0);
        assert_eq!(span(&mut heat, at(n + 2), limits::CACHE_HOT_REQUESTS), 0);
        // A pause without requests ends it as well.
        let mut heat = Popularity::new(begin);
        for n in 0..=limits::CACHE_HOT_INTERVAL_COUNT {
            span(&mut heat, at(n), limits::CACHE_HOT_REQUESTS);
        }
        let late = at(limits::CACHE_HOT_INTERVAL_COUNT + 2) + Duration::from_millis(1);
        assert!(!heat.ask(late));
    }

    #[test]
    fn notifies_one_caller_per_interval_and_counts_all_requests() {
        let begin = Instant::now();
        let mut heat = Popularity::new(begin);
        heat.ask(begin);
        assert_eq!([heat.tell(), heat.tell()], [true, false]);
        heat.ask(begin + limits::CACHE_HOT_INTERVAL);
        assert_eq!([heat.tell(), heat.tell()], [true, false]);
        assert_eq!((heat.take(), heat.take()), (2, 0));
    }
}
