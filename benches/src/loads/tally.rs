//! Counts of calls to failing servers: failures by kind, and the longest time without a correct
//! response.

use std::time::{Duration, Instant};

use crate::sample::{Metric, Sample};

/// How a call failed, from the client's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// gRPC status 14.
    Unavailable,
    /// gRPC status 4, or no response until a second after the deadline.
    Deadline,
    /// The connection or the stream broke, or the connect failed.
    Lost,
    /// Another gRPC status.
    Other,
}

/// Counts of calls.
#[derive(Debug)]
pub(crate) struct Tally {
    right: u64,
    failed_reads: u64,
    failed_puts: u64,
    unavailable: u64,
    deadline: u64,
    lost: u64,
    other: u64,
    last_right: Instant,
    gap: Duration,
    /// The first wrong response, which fails the sample.
    wrong: Option<String>,
}

impl Tally {
    /// Starts with all counts at zero.
    pub(crate) fn new(now: Instant) -> Tally {
        Tally {
            right: 0,
            failed_reads: 0,
            failed_puts: 0,
            unavailable: 0,
            deadline: 0,
            lost: 0,
            other: 0,
            last_right: now,
            gap: Duration::ZERO,
            wrong: None,
        }
    }

    /// Counts a correct response.
    pub(crate) fn right(&mut self, now: Instant) {
        self.right += 1;
        self.gap = self.gap.max(now.saturating_duration_since(self.last_right));
        self.last_right = now;
    }

    /// Counts a failed call.
    pub(crate) fn failed(&mut self, is_put: bool, failure: Failure) {
        let by_kind = match failure {
            Failure::Unavailable => &mut self.unavailable,
            Failure::Deadline => &mut self.deadline,
            Failure::Lost => &mut self.lost,
            Failure::Other => &mut self.other,
        };
        *by_kind += 1;
        if is_put {
            self.failed_puts += 1;
        } else {
            self.failed_reads += 1;
        }
    }

    /// Records a wrong response.
    pub(crate) fn wrong(&mut self, text: String) {
        self.wrong.get_or_insert(text);
    }

    /// Returns the figures after all calls have ended, or an error if a response was wrong.
    pub(crate) fn sample(&self) -> Result<Sample, String> {
        if let Some(text) = &self.wrong {
            return Err(text.clone());
        }
        if self.right == 0 {
            return Err("no call succeeded".into());
        }
        let failed = self.failed_reads + self.failed_puts;
        let mut sample = Sample::default();
        let figures = [
            (Metric::Calls, self.right + failed),
            (Metric::FailedReads, self.failed_reads),
            (Metric::FailedPuts, self.failed_puts),
            (Metric::Unavailable, self.unavailable),
            (Metric::DeadlineExceeded, self.deadline),
            (Metric::ConnectionLost, self.lost),
            (Metric::OtherFailure, self.other),
        ];
        for (metric, count) in figures {
            sample.set(metric, count as f64);
        }
        sample.set(Metric::Gap, self.gap.as_secs_f64() * 1e3);
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_kind_and_the_longest_gap_is_reported() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut tally = Tally::new(begin);
        tally.right(at(10));
        tally.failed(true, Failure::Unavailable);
        tally.failed(false, Failure::Lost);
        tally.right(at(510));
        // A response that is counted late makes no gap.
        tally.right(at(500));
        tally.right(at(520));
        let sample = tally.sample().unwrap();
        let figures = [
            (Metric::Calls, 6.0),
            (Metric::FailedReads, 1.0),
            (Metric::FailedPuts, 1.0),
            (Metric::Unavailable, 1.0),
            (Metric::ConnectionLost, 1.0),
            (Metric::DeadlineExceeded, 0.0),
            (Metric::Gap, 500.0),
        ];
        for (metric, value) in figures {
            assert_eq!(sample.get(metric), Some(value), "{metric:?}");
        }
        tally.wrong("stale".into());
        assert_eq!(tally.sample().err(), Some("stale".into()));
        assert!(Tally::new(begin).sample().is_err());
    }
}
