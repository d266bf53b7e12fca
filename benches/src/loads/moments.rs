//! The moments at which an evenly paced load begins its operations.

use std::time::{Duration, Instant};

use super::pace::Ticker;

/// Moments an interval apart, from now on.
pub(crate) struct Moments {
    ticker: Ticker,
    begin: Instant,
    interval: Duration,
    issued: u32,
}

impl Moments {
    /// So many a second.
    pub(crate) fn new(per_second: f64) -> Result<Moments, String> {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let mut ticker = Ticker::new()?;
        ticker.start(interval);
        Ok(Moments {
            ticker,
            begin: Instant::now(),
            interval,
            issued: 0,
        })
    }

    /// The next moment, when it has come: as it was meant, however late that is told. May be
    /// dropped and called again.
    pub(crate) async fn next(&mut self) -> Instant {
        let next = self.begin + self.interval.mul_f64(f64::from(self.issued) + 1.0);
        while Instant::now() < next {
            self.ticker.tick().await;
        }
        self.issued += 1;
        next
    }
}
