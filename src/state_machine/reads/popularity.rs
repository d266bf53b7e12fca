//! How often an answer is asked for, and whether that is often enough for a watch (R2).

use std::time::Instant;

use crate::limits;

/// Of one answer and those that take its place: what ends an answer's life does not end its heat.
#[derive(Debug)]
pub struct Popularity {
    /// When the span began that is counted now.
    since: Instant,
    /// How often it was asked for in it.
    asked: u32,
    /// Spans in a row in which it was asked for often.
    spans: u32,
    /// Somebody was told in this span.
    told: bool,
    /// How often it was asked for since that was last taken.
    untaken: u32,
}

impl Popularity {
    /// Not asked for yet.
    pub fn new(now: Instant) -> Popularity {
        Popularity {
            since: now,
            asked: 0,
            spans: 0,
            told: false,
            untaken: 0,
        }
    }

    /// It is asked for; says whether it is hot.
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

    /// True for whoever is to be told that it is hot: one in each span.
    pub fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// How often it was asked for since this was last called.
    pub fn take(&mut self) -> u32 {
        std::mem::take(&mut self.untaken)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Asks so often within a span from then on; says how often it was hot.
    fn span(heat: &mut Popularity, begin: Instant, count: u32) -> usize {
        let step = limits::CACHE_HOT_INTERVAL / (count + 1);
        (0..count).filter(|n| heat.ask(begin + step * *n)).count()
    }

    #[test]
    fn it_is_hot_after_some_spans_in_a_row() {
        let begin = Instant::now();
        let mut heat = Popularity::new(begin);
        let at = |n: u32| begin + limits::CACHE_HOT_INTERVAL * n;
        for n in 0..limits::CACHE_HOT_INTERVAL_COUNT {
            assert_eq!(span(&mut heat, at(n), limits::CACHE_HOT_REQUESTS), 0);
        }
        let n = limits::CACHE_HOT_INTERVAL_COUNT;
        assert!(span(&mut heat, at(n), limits::CACHE_HOT_REQUESTS) > 0);
        // A span that is not busy ends it.
        assert!(span(&mut heat, at(n + 1), limits::CACHE_HOT_REQUESTS - 1) > 0);
        assert_eq!(span(&mut heat, at(n + 2), limits::CACHE_HOT_REQUESTS), 0);
        // Nothing at all for a while does too.
        let mut heat = Popularity::new(begin);
        for n in 0..=limits::CACHE_HOT_INTERVAL_COUNT {
            span(&mut heat, at(n), limits::CACHE_HOT_REQUESTS);
        }
        let late = at(limits::CACHE_HOT_INTERVAL_COUNT + 2) + Duration::from_millis(1);
        assert!(!heat.ask(late));
    }

    #[test]
    fn one_is_told_in_each_span_and_all_are_counted() {
        let begin = Instant::now();
        let mut heat = Popularity::new(begin);
        heat.ask(begin);
        assert_eq!([heat.tell(), heat.tell()], [true, false]);
        heat.ask(begin + limits::CACHE_HOT_INTERVAL);
        assert_eq!([heat.tell(), heat.tell()], [true, false]);
        assert_eq!((heat.take(), heat.take()), (2, 0));
    }
}
