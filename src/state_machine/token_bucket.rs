//! Token bucket: a burst, then a rate per second (S1).
//!
//! The clock is read only when the bucket seems empty. Therefore, after a pause, up to twice the
//! burst may pass at once. Over all time the total never exceeds burst + rate × time.

use std::time::{Duration, Instant};

/// Token bucket with its limits, the tokens left, and the time of the last refill.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    burst: u32,
    per_second: u32,
    tokens: u32,
    refilled: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub fn new(burst: u32, per_second: u32, now: Instant) -> TokenBucket {
        TokenBucket {
            burst,
            per_second,
            tokens: burst,
            refilled: now,
        }
    }

    /// Takes `n` tokens. Returns false, and takes none, if there are fewer.
    ///
    /// `now` is a clock that is read only when the bucket seems empty: the common case costs a
    /// subtraction.
    pub fn take(&mut self, n: u32, now: impl FnOnce() -> Instant) -> bool {
        if self.tokens < n {
            self.refill(now());
        }
        match self.tokens.checked_sub(n) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    fn refill(&mut self, now: Instant) {
        let per_second = u64::from(self.per_second.max(1));
        let elapsed = now.saturating_duration_since(self.refilled).as_nanos();
        let earned = u64::try_from(elapsed)
            .unwrap_or(u64::MAX)
            .saturating_mul(per_second)
            / 1_000_000_000;
        let missing = u64::from(self.burst - self.tokens);
        if earned >= missing {
            self.tokens = self.burst;
            self.refilled = now;
        } else {
            // earned < missing ≤ u32::MAX, so the cast is exact.
            self.tokens += earned as u32;
            // Only the time that became tokens is spent. Otherwise slow rates would never refill.
            self.refilled += Duration::from_nanos(earned * 1_000_000_000 / per_second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn burst_then_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(3, 10, start);
        assert!((0..3).all(|_| bucket.take(1, || start)));
        assert!(!bucket.take(1, || start + Duration::from_millis(99)));
        assert!(bucket.take(1, || start + Duration::from_millis(100)));
        assert!(!bucket.take(1, || start + Duration::from_millis(199)));
    }

    proptest! {
        /// The total never exceeds burst + rate × time, and the bucket is full after burst / rate.
        #[test]
        fn stays_within_burst_and_rate(steps in prop::collection::vec((0u64..300, 1u32..4), 1..200)) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(5, 20, start);
            let (mut at, mut taken) = (Duration::ZERO, 0);
            for (millis, n) in steps {
                at += Duration::from_millis(millis);
                let granted = bucket.take(n, || start + at);
                taken += if granted { n } else { 0 };
                prop_assert!(f64::from(taken) <= 5.0 + 20.0 * at.as_secs_f64() + 1e-6);
                prop_assert!(granted || millis < 250);
            }
        }
    }
}
