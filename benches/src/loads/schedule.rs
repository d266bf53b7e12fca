//! Due times of the operations of a load with a fixed rate.

use std::time::{Duration, Instant};

use super::pace::Ticker;

/// Due times at a fixed interval, from now on.
pub(crate) struct Schedule {
    ticker: Ticker,
    begin: Instant,
    interval: Duration,
    issued: u32,
}

impl Schedule {
    /// A schedule of `per_second` operations per second.
    pub(crate) fn new(per_second: f64) -> Result<Schedule, String> {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let mut ticker = Ticker::new()?;
        ticker.start(interval);
        Ok(Schedule {
            ticker,
            begin: Instant::now(),
            interval,
            issued: 0,
        })
    }

    /// Waits for the next due time and returns it. The result is the intended time, even if the
    /// caller is late. Cancel safe.
    pub(crate) async fn next(&mut self) -> Instant {
        let next = self.begin + self.interval.mul_f64(f64::from(self.issued) + 1.0);
        while Instant::now() < next {
            self.ticker.tick().await;
        }
        self.issued += 1;
        next
    }
}
