//! Outlier detection: finds the endpoint that does much worse than the others, by errors, by latency
//! or by not answering at all. Ejects it for a while and readmits it with a growing share.
//!
//! An endpoint is compared only with the others at the same time. If all endpoints are slow or
//! failing, none is ejected.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;
pub use crate::metrics::LATENCY_STEPS;

/// End of the first latency step, in microseconds.
const FIRST_STEP: u64 = 64;

/// Returns the latency step of a latency: 0 up to `LATENCY_STEPS` - 1.
///
/// Each step is twice as long as the previous one. The first ends at `FIRST_STEP`, the last has no
/// end.
pub fn step(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let doubled = u64::BITS - (micros / FIRST_STEP).leading_zeros();
    // At most 64.
    (doubled as usize).min(STEPS - 1)
}

/// Counts of the calls of an endpoint, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Answered calls, by latency step.
    pub answered: [u64; STEPS],
    /// Calls that failed because of the endpoint.
    pub failed: u64,
    /// Calls open at the end of the tick.
    pub open: u64,
}

impl Seen {
    /// Returns the difference to earlier counts. `open` is not a difference.
    pub fn since(&self, before: &Seen) -> Seen {
        Seen {
            answered: std::array::from_fn(|n| self.answered[n].wrapping_sub(before.answered[n])),
            failed: self.failed.wrapping_sub(before.failed),
            open: self.open,
        }
    }

    fn answers(&self) -> u64 {
        self.answered.iter().sum()
    }

    fn ended(&self) -> u64 {
        self.answers() + self.failed
    }

    fn add(&mut self, other: &Seen) {
        let steps = self.answered.iter_mut().zip(&other.answered);
        steps.for_each(|(sum, more)| *sum += more);
        self.failed += other.failed;
        self.open += other.open;
    }

    /// Returns the median latency step; `None` without an answered call.
    fn median(&self) -> Option<usize> {
        let half = self.answers().div_ceil(2);
        let mut sum = 0;
        let within = |count: &u64| {
            sum += count;
            sum >= half
        };
        self.answered.iter().position(within).filter(|_| half > 0)
    }
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It answers no call, while others answer.
    Silent,
    /// Too many of its calls fail.
    Errors,
    /// Its median latency is too high.
    Latency,
}

impl Cause {
    /// Returns the name for the log.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Silent => "silent",
            Cause::Errors => "errors",
            Cause::Latency => "latency",
        }
    }
}

/// Outlier state of one endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Outlier {
    /// Counts of the last ticks, the latest last.
    window: VecDeque<Seen>,
    out_until: Option<Instant>,
    /// Recent ejections.
    times: u32,
    /// When it returned, or will return, from a backoff or ejection.
    back: Option<Instant>,
}

impl Outlier {
    /// Adds the counts of a tick.
    pub(super) fn saw(&mut self, seen: Seen) {
        self.window.push_back(seen);
        if self.window.len() > limits::OUTLIER_TICKS {
            self.window.pop_front();
        }
    }

    /// Returns whether the endpoint is ejected.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }

    /// Ejects the endpoint. Each ejection in a row is twice as long.
    pub(super) fn leave_out(&mut self, now: Instant) {
        let forgotten = |out: Instant| now >= out + limits::EJECTION_RESET_TIME;
        if self.out_until.is_some_and(forgotten) {
            self.times = 0;
        }
        let time = limits::EJECTION_FIRST.saturating_mul(1 << self.times.min(16));
        let until = now + time.min(limits::EJECTION_LONGEST);
        self.times = self.times.saturating_add(1);
        self.out_until = Some(until);
        self.comes_back(until);
    }

    /// Sets when the endpoint receives calls again.
    pub(super) fn comes_back(&mut self, at: Instant) {
        // A later time that was set before remains.
        self.back = Some(self.back.map_or(at, |back| back.max(at)));
        self.window.clear();
    }

    /// Returns the current part of a full share, in tenths: 1 to 10.
    pub(super) fn tenths(&self, now: Instant) -> u32 {
        let Some(back) = self.back else { return 10 };
        let passed = now.saturating_duration_since(back);
        let tenths = passed.as_millis() * 10 / limits::SLOW_START_TIME.as_millis();
        u32::try_from(tenths).unwrap_or(10).min(9) + 1
    }

    fn sum(&self, ticks: usize) -> Seen {
        let mut sum = Seen::default();
        self.window
            .iter()
            .rev()
            .take(ticks)
            .for_each(|s| sum.add(s));
        sum
    }

    /// Returns whether calls were open at the end of each of the last ticks and none has ended.
    fn is_silent(&self) -> bool {
        let late = self.window.iter().rev().take(limits::SILENT_TICKS);
        self.window.len() >= limits::SILENT_TICKS
            && late
                .into_iter()
                .all(|seen| seen.open > 0 && seen.ended() == 0)
    }
}

/// Returns the worst of the endpoints that receive calls, if it is so much worse than the others that
/// it must be ejected.
pub(super) fn worst(of: &[&Outlier]) -> Option<(usize, Cause)> {
    let sums: Vec<Seen> = of.iter().map(|o| o.sum(limits::OUTLIER_TICKS)).collect();
    let late: Vec<Seen> = of.iter().map(|o| o.sum(limits::SILENT_TICKS)).collect();
    let all_others = |sums: &[Seen], n: usize| {
        let mut others = Seen::default();
        let each = sums.iter().enumerate().filter(|(m, _)| *m != n);
        each.for_each(|(_, seen)| others.add(seen));
        others
    };
    let found = (0..of.len()).filter_map(|n| {
        if of[n].is_silent() {
            let answers = all_others(&late, n).answers();
            return (answers >= limits::OUTLIER_MIN_CALLS).then_some((n, Cause::Silent, u64::MAX));
        }
        let (own, others) = (sums[n], all_others(&sums, n));
        judge(&own, &others).map(|(cause, badness)| (n, cause, badness))
    });
    let worst = found.max_by_key(|(_, _, badness)| *badness);
    worst.map(|(n, cause, _)| (n, cause))
}

/// Compares an endpoint with the sum of the others. Returns the cause of an ejection and its
/// severity: errors rank above latency.
fn judge(own: &Seen, others: &Seen) -> Option<(Cause, u64)> {
    let (ended, their) = (own.ended(), others.ended());
    if ended < limits::OUTLIER_MIN_CALLS || their < limits::OUTLIER_MIN_CALLS {
        return None;
    }
    let often = own.failed * 100 >= ended * limits::OUTLIER_ERROR_PERCENT;
    // Cross-multiplied: the error rate is so many times that of the others.
    let more = own.failed * their >= limits::OUTLIER_ERROR_FACTOR * others.failed * ended;
    if often && more {
        return Some((Cause::Errors, 1_000 + own.failed * 1_000 / ended));
    }
    let (own, theirs) = (own.median()?, others.median()?);
    let slow =
        own >= theirs + limits::OUTLIER_LATENCY_DOUBLINGS && own > step(limits::OUTLIER_LATENCY);
    // Below 1,000, because there are fewer steps.
    slow.then(|| (Cause::Latency, (own - theirs) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(answered: u64, latency: Duration, failed: u64, open: u64) -> Seen {
        let mut seen = Seen {
            failed,
            open,
            ..Seen::default()
        };
        seen.answered[step(latency)] = answered;
        seen
    }

    fn outlier(ticks: &[Seen]) -> Outlier {
        let mut outlier = Outlier::default();
        ticks.iter().for_each(|seen| outlier.saw(*seen));
        outlier
    }

    fn verdict(of: &[Seen]) -> Option<(usize, Cause)> {
        let of: Vec<Outlier> = of.iter().map(|seen| outlier(&[*seen; 4])).collect();
        worst(&of.iter().collect::<Vec<_>>())
    }

    const FAST: Duration = Duration::from_millis(1);

    #[test]
    fn steps_double() {
        for (micros, expected) in [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2), (1024, 5)] {
            assert_eq!(step(Duration::from_micros(micros)), expected, "{micros}");
        }
        assert_eq!(step(Duration::MAX), STEPS - 1);
    }

    #[test]
    fn errors_matter_if_the_others_have_few() {
        let fine = seen(100, FAST, 0, 1);
        let broken = seen(50, FAST, 50, 1);
        assert_eq!(verdict(&[fine, broken, fine]), Some((1, Cause::Errors)));
        // All endpoints are equal.
        assert_eq!(verdict(&[broken, broken, broken]), None);
        assert_eq!(verdict(&[fine, fine, fine]), None);
        // Too few calls, or too few errors.
        let few = seen(1, FAST, 2, 1);
        assert_eq!(verdict(&[fine, few, fine]), None);
        assert_eq!(verdict(&[fine, seen(95, FAST, 5, 1), fine]), None);
        // No other endpoint to compare with.
        assert_eq!(verdict(&[broken]), None);
        assert_eq!(verdict(&[broken, Seen::default()]), None);
    }

    #[test]
    fn latency_matters_if_the_others_are_fast() {
        let fast = seen(100, FAST, 0, 1);
        let slow = seen(30, Duration::from_millis(60), 0, 1);
        assert_eq!(verdict(&[fast, fast, slow]), Some((2, Cause::Latency)));
        assert_eq!(verdict(&[slow, slow, slow]), None);
        // A little slower, or slower but still fast.
        assert_eq!(verdict(&[fast, seen(100, FAST * 2, 0, 1), fast]), None);
        let quick = seen(100, Duration::from_micros(50), 0, 1);
        assert_eq!(verdict(&[quick, seen(100, FAST, 0, 1), quick]), None);
        // A fast median is enough.
        let mut mixed = seen(60, FAST, 0, 1);
        mixed.answered[step(Duration::from_secs(1))] = 50;
        assert_eq!(verdict(&[fast, mixed, fast]), None);
    }

    #[test]
    fn silence_matters_if_others_answer() {
        let fine = seen(100, FAST, 0, 1);
        let silent = seen(0, FAST, 0, 3);
        assert_eq!(verdict(&[fine, silent]), Some((1, Cause::Silent)));
        assert_eq!(verdict(&[silent, silent]), None);
        // It had no open call in one tick, or was not silent for long enough.
        let idle = seen(0, FAST, 0, 0);
        let fine = outlier(&[fine; 4]);
        assert_eq!(
            worst(&[&fine, &outlier(&[silent, silent, idle, silent])]),
            None
        );
        assert_eq!(worst(&[&fine, &outlier(&[silent; 3])]), None);
    }

    #[test]
    fn the_worst_endpoint_is_ejected_first() {
        let fine = seen(1_000, FAST, 0, 1);
        let slow = seen(100, Duration::from_millis(100), 0, 1);
        let broken = seen(50, FAST, 50, 1);
        let silent = seen(0, FAST, 0, 3);
        assert_eq!(verdict(&[fine, slow, broken]), Some((2, Cause::Errors)));
        assert_eq!(
            verdict(&[fine, broken, slow, silent]),
            Some((3, Cause::Silent))
        );
    }

    #[test]
    fn consecutive_ejections_grow_and_the_return_is_gradual() {
        let start = Instant::now();
        let mut outlier = Outlier::default();
        assert_eq!(outlier.tenths(start), 10);
        let mut now = start;
        let mut times = Vec::new();
        for _ in 0..12 {
            outlier.leave_out(now);
            assert!(outlier.is_out(now));
            let until = outlier.out_until.unwrap();
            times.push(until - now);
            now = until;
            assert!(!outlier.is_out(now));
            assert_eq!(outlier.tenths(now), 1);
            assert_eq!(outlier.tenths(now + limits::SLOW_START_TIME / 2), 6);
            assert_eq!(outlier.tenths(now + limits::SLOW_START_TIME), 10);
        }
        assert_eq!(times[0], limits::EJECTION_FIRST);
        assert!(times.is_sorted());
        assert_eq!(times[11], limits::EJECTION_LONGEST);
        outlier.leave_out(now + limits::EJECTION_RESET_TIME);
        let until = outlier.out_until.unwrap();
        assert_eq!(
            until - now,
            limits::EJECTION_RESET_TIME + limits::EJECTION_FIRST
        );
    }
}
