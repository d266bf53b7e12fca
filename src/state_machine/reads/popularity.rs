//! Popularity of a cache entry: whether it is requested often enough for a watch (R2).

use std::time::Instant;

use crate::limits;

/// Request rate of one cache entry. A new response of the entry does not reset the rate.
#[derive(Debug)]
pub struct Popularity {
    /// Start of the current interval.
    interval_start: Instant,
    /// Requests in the current interval.
    requests: u32,
    /// Consecutive intervals with enough requests.
    busy_intervals: u32,
    /// A caller was notified in the current interval.
    notified: bool,
    /// Requests since the last [`Popularity::take_count`].
    uncollected: u32,
}

impl Popularity {
    /// Creates the state of an entry without requests.
    pub fn new(now: Instant) -> Popularity {
        Popularity {
            interval_start: now,
            requests: 0,
            busy_intervals: 0,
            notified: false,
            uncollected: 0,
        }
    }

    /// Counts a request. Returns whether the entry is popular.
    pub fn record_request(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.interval_start);
        if passed >= limits::CACHE_HOT_INTERVAL {
            let busy = self.requests >= limits::CACHE_HOT_REQUESTS
                && passed < 2 * limits::CACHE_HOT_INTERVAL;
            self.busy_intervals = if busy {
                self.busy_intervals.saturating_add(1)
            } else {
                0
            };
            self.interval_start = now;
            self.requests = 0;
            self.notified = false;
        }
        self.requests = self.requests.saturating_add(1);
        self.uncollected = self.uncollected.saturating_add(1);
        self.busy_intervals >= limits::CACHE_HOT_INTERVAL_COUNT
    }

    /// Returns true once per interval: this caller must request a watch.
    pub fn notify_once(&mut self) -> bool {
        !std::mem::replace(&mut self.notified, true)
    }

    /// Returns the number of requests since the last call.
    pub fn take_count(&mut self) -> u32 {
        std::mem::take(&mut self.uncollected)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sends `count` requests within an interval. Returns for how many the entry was popular.
    fn interval(popularity: &mut Popularity, begin: Instant, count: u32) -> usize {
        let step = limits::CACHE_HOT_INTERVAL / (count + 1);
        (0..count)
            .filter(|n| popularity.record_request(begin + step * *n))
            .count()
    }

    #[test]
    fn is_popular_after_consecutive_busy_intervals() {
        let begin = Instant::now();
        let mut popularity = Popularity::new(begin);
        let at = |n: u32| begin + limits::CACHE_HOT_INTERVAL * n;
        for n in 0..limits::CACHE_HOT_INTERVAL_COUNT {
            assert_eq!(
                interval(&mut popularity, at(n), limits::CACHE_HOT_REQUESTS),
                0
            );
        }
        let n = limits::CACHE_HOT_INTERVAL_COUNT;
        assert!(interval(&mut popularity, at(n), limits::CACHE_HOT_REQUESTS) > 0);
        // An interval with too few requests ends the popularity.
        assert!(interval(&mut popularity, at(n + 1), limits::CACHE_HOT_REQUESTS - 1) > 0);
        assert_eq!(
            interval(&mut popularity, at(n + 2), limits::CACHE_HOT_REQUESTS),
            0
        );
        // A pause without requests ends it as well.
        let mut popularity = Popularity::new(begin);
        for n in 0..=limits::CACHE_HOT_INTERVAL_COUNT {
            interval(&mut popularity, at(n), limits::CACHE_HOT_REQUESTS);
        }
        let late = at(limits::CACHE_HOT_INTERVAL_COUNT + 2) + Duration::from_millis(1);
        assert!(!popularity.record_request(late));
    }

    #[test]
    fn notifies_one_caller_per_interval_and_counts_all_requests() {
        let begin = Instant::now();
        let mut popularity = Popularity::new(begin);
        popularity.record_request(begin);
        assert_eq!(
            [popularity.notify_once(), popularity.notify_once()],
            [true, false]
        );
        popularity.record_request(begin + limits::CACHE_HOT_INTERVAL);
        assert_eq!(
            [popularity.notify_once(), popularity.notify_once()],
            [true, false]
        );
        assert_eq!((popularity.take_count(), popularity.take_count()), (2, 0));
    }
}
