//! Outlier detection: finds the endpoint with far more errors or a far higher latency than the
//! others, or without any response. Ejects the endpoint for a time, and readmits it with a growing
//! share.
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
pub fn latency_step(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let doubled = u64::BITS - (micros / FIRST_STEP).leading_zeros();
    // At most 64.
    (doubled as usize).min(LATENCY_STEPS - 1)
}

/// Counts of the calls of an endpoint, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallOutcomes {
    /// Answered calls, by latency step.
    pub answered: [u64; LATENCY_STEPS],
    /// Calls that failed because of the endpoint.
    pub failed: u64,
    /// Calls open at the end of the tick.
    pub open: u64,
}

impl CallOutcomes {
    /// Returns the difference to earlier counts. `open` is not a difference.
    pub fn since(&self, before: &CallOutcomes) -> CallOutcomes {
        CallOutcomes {
            answered: std::array::from_fn(|n| self.answered[n].wrapping_sub(before.answered[n])),
            failed: self.failed.wrapping_sub(before.failed),
            open: self.open,
        }
    }

    fn answered_calls(&self) -> u64 {
        self.answered.iter().sum()
    }

    fn ended(&self) -> u64 {
        self.answered_calls() + self.failed
    }

    fn add(&mut self, other: &CallOutcomes) {
        let steps = self.answered.iter_mut().zip(&other.answered);
        steps.for_each(|(sum, more)| *sum += more);
        self.failed += other.failed;
        self.open += other.open;
    }

    /// Returns the median latency step; `None` without an answered call.
    fn median(&self) -> Option<usize> {
        let half = self.answered_calls().div_ceil(2);
        let mut sum = 0;
        let within = |count: &u64| {
            sum += count;
            sum >= half
        };
        self.answered.iter().position(within).filter(|_| half > 0)
    }
}

/// Reason why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionCause {
    /// It answers no call, while others answer.
    Silent,
    /// Too many of its calls fail.
    Errors,
    /// Its median latency is too high.
    Latency,
}

impl EjectionCause {
    /// Returns the name for the log.
    pub fn name(self) -> &'static str {
        match self {
            EjectionCause::Silent => "silent",
            EjectionCause::Errors => "errors",
            EjectionCause::Latency => "latency",
        }
    }
}

/// Outlier state of one endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Outlier {
    /// Counts of the last ticks, the latest last.
    window: VecDeque<CallOutcomes>,
    ejected_until: Option<Instant>,
    /// Recent ejections.
    ejections: u32,
    /// Time of the last or next return from a backoff or ejection.
    returned_at: Option<Instant>,
}

impl Outlier {
    /// Adds the counts of a tick.
    pub(super) fn push(&mut self, calls: CallOutcomes) {
        self.window.push_back(calls);
        if self.window.len() > limits::OUTLIER_TICKS {
            self.window.pop_front();
        }
    }

    /// Returns whether the endpoint is ejected.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// Ejects the endpoint. Each ejection in a row is twice as long.
    pub(super) fn eject(&mut self, now: Instant) {
        let forgotten = |out: Instant| now >= out + limits::EJECTION_RESET_TIME;
        if self.ejected_until.is_some_and(forgotten) {
            self.ejections = 0;
        }
        let time = limits::EJECTION_FIRST.saturating_mul(1 << self.ejections.min(16));
        let until = now + time.min(limits::EJECTION_LONGEST);
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until = Some(until);
        self.readmit_at(until);
    }

    /// Sets when the endpoint receives calls again.
    pub(super) fn readmit_at(&mut self, at: Instant) {
        // A later time that was set before remains.
        self.returned_at = Some(
            self.returned_at
                .map_or(at, |returned_at| returned_at.max(at)),
        );
        self.window.clear();
    }

    /// Returns the current part of a full share, in tenths: 1 to 10.
    pub(super) fn tenths(&self, now: Instant) -> u32 {
        let Some(returned_at) = self.returned_at else {
            return 10;
        };
        let passed = now.saturating_duration_since(returned_at);
        let tenths = passed.as_millis() * 10 / limits::SLOW_START_TIME.as_millis();
        u32::try_from(tenths).unwrap_or(10).min(9) + 1
    }

    fn sum(&self, ticks: usize) -> CallOutcomes {
        let mut sum = CallOutcomes::default();
        self.window
            .iter()
            .rev()
            .take(ticks)
            .for_each(|s| sum.add(s));
        sum
    }

    /// Returns whether calls were open at the end of each of the last ticks and none has ended.
    fn is_silent(&self) -> bool {
        let recent = self.window.iter().rev().take(limits::SILENT_TICKS);
        self.window.len() >= limits::SILENT_TICKS
            && recent
                .into_iter()
                .all(|calls| calls.open > 0 && calls.ended() == 0)
    }
}

/// Returns the worst of the endpoints that receive calls, if it is so much worse than the others
/// that it must be ejected.
pub(super) fn worst(of: &[&Outlier]) -> Option<(usize, EjectionCause)> {
    let sums: Vec<CallOutcomes> = of.iter().map(|o| o.sum(limits::OUTLIER_TICKS)).collect();
    let recent: Vec<CallOutcomes> = of.iter().map(|o| o.sum(limits::SILENT_TICKS)).collect();
    let all_others = |sums: &[CallOutcomes], n: usize| {
        let mut others = CallOutcomes::default();
        let each = sums.iter().enumerate().filter(|(m, _)| *m != n);
        each.for_each(|(_, calls)| others.add(calls));
        others
    };
    let found = (0..of.len()).filter_map(|n| {
        if of[n].is_silent() {
            let answered = all_others(&recent, n).answered_calls();
            return (answered >= limits::OUTLIER_MIN_CALLS).then_some((
                n,
                EjectionCause::Silent,
                u64::MAX,
            ));
        }
        let (own, others) = (sums[n], all_others(&sums, n));
        compare(&own, &others).map(|(cause, severity)| (n, cause, severity))
    });
    let worst = found.max_by_key(|(_, _, severity)| *severity);
    worst.map(|(n, cause, _)| (n, cause))
}

/// Compares an endpoint with the sum of the others. Returns the cause of an ejection and its
/// severity: errors rank above latency.
fn compare(own: &CallOutcomes, others: &CallOutcomes) -> Option<(EjectionCause, u64)> {
    let (ended, their) = (own.ended(), others.ended());
    if ended < limits::OUTLIER_MIN_CALLS || their < limits::OUTLIER_MIN_CALLS {
        return None;
    }
    let often = own.failed * 100 >= ended * limits::OUTLIER_ERROR_PERCENT;
    // Cross-multiplied: the error rate is so many times that of the others.
    let more = own.failed * their >= limits::OUTLIER_ERROR_FACTOR * others.failed * ended;
    if often && more {
        return Some((EjectionCause::Errors, 1_000 + own.failed * 1_000 / ended));
    }
    let (own, theirs) = (own.median()?, others.median()?);
    let slow = own >= theirs + limits::OUTLIER_LATENCY_DOUBLINGS
        && own > latency_step(limits::OUTLIER_LATENCY);
    // Below 1,000, because there are fewer steps.
    slow.then(|| (EjectionCause::Latency, (own - theirs) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(answered: u64, latency: Duration, failed: u64, open: u64) -> CallOutcomes {
        let mut calls = CallOutcomes {
            failed,
            open,
            ..CallOutcomes::default()
        };
        calls.answered[latency_step(latency)] = answered;
        calls
    }

    fn outlier(ticks: &[CallOutcomes]) -> Outlier {
        let mut outlier = Outlier::default();
        ticks.iter().for_each(|calls| outlier.push(*calls));
        outlier
    }

    fn verdict(of: &[CallOutcomes]) -> Option<(usize, EjectionCause)> {
        let of: Vec<Outlier> = of.iter().map(|calls| outlier(&[*calls; 4])).collect();
        worst(&of.iter().collect::<Vec<_>>())
    }

    const FAST: Duration = Duration::from_millis(1);

    #[test]
    fn steps_double() {
        for (micros, expected) in [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2), (1024, 5)] {
            assert_eq!(
                latency_step(Duration::from_micros(micros)),
                expected,
                "{micros}"
            );
        }
        assert_eq!(latency_step(Duration::MAX), LATENCY_STEPS - 1);
    }

    #[test]
    fn errors_matter_if_the_others_have_few() {
        let fine = calls(100, FAST, 0, 1);
        let broken = calls(50, FAST, 50, 1);
        assert_eq!(
            verdict(&[fine, broken, fine]),
            Some((1, EjectionCause::Errors))
        );
        // All endpoints are equal.
        assert_eq!(verdict(&[broken, broken, broken]), None);
        assert_eq!(verdict(&[fine, fine, fine]), None);
        // Too few calls, or too few errors.
        let few = calls(1, FAST, 2, 1);
        assert_eq!(verdict(&[fine, few, fine]), None);
        assert_eq!(verdict(&[fine, calls(95, FAST, 5, 1), fine]), None);
        // No other endpoint to compare with.
        assert_eq!(verdict(&[broken]), None);
        assert_eq!(verdict(&[broken, CallOutcomes::default()]), None);
    }

    #[test]
    fn latency_matters_if_the_others_are_fast() {
        let fast = calls(100, FAST, 0, 1);
        let slow = calls(30, Duration::from_millis(60), 0, 1);
        assert_eq!(
            verdict(&[fast, fast, slow]),
            Some((2, EjectionCause::Latency))
        );
        assert_eq!(verdict(&[slow, slow, slow]), None);
        // A little slower, or slower but still fast.
        assert_eq!(verdict(&[fast, calls(100, FAST * 2, 0, 1), fast]), None);
        let quick = calls(100, Duration::from_micros(50), 0, 1);
        assert_eq!(verdict(&[quick, calls(100, FAST, 0, 1), quick]), None);
        // A fast median is enough.
        let mut mixed = calls(60, FAST, 0, 1);
        mixed.answered[latency_step(Duration::from_secs(1))] = 50;
        assert_eq!(verdict(&[fast, mixed, fast]), None);
    }

    #[test]
    fn silence_matters_if_others_answer() {
        let fine = calls(100, FAST, 0, 1);
        let silent = calls(0, FAST, 0, 3);
        assert_eq!(verdict(&[fine, silent]), Some((1, EjectionCause::Silent)));
        assert_eq!(verdict(&[silent, silent]), None);
        // It had no open call in one tick, or was not silent for long enough.
        let idle = calls(0, FAST, 0, 0);
        let fine = outlier(&[fine; 4]);
        assert_eq!(
            worst(&[&fine, &outlier(&[silent, silent, idle, silent])]),
            None
        );
        assert_eq!(worst(&[&fine, &outlier(&[silent; 3])]), None);
    }

    #[test]
    fn the_worst_endpoint_is_ejected_first() {
        let fine = calls(1_000, FAST, 0, 1);
        let slow = calls(100, Duration::from_millis(100), 0, 1);
        let broken = calls(50, FAST, 50, 1);
        let silent = calls(0, FAST, 0, 3);
        assert_eq!(
            verdict(&[fine, slow, broken]),
            Some((2, EjectionCause::Errors))
        );
        assert_eq!(
            verdict(&[fine, broken, slow, silent]),
            Some((3, EjectionCause::Silent))
        );
    }

    #[test]
    fn consecutive_ejections_grow_and_the_return_is_gradual() {
        let start = Instant::now();
        let mut outlier = Outlier::default();
        assert_eq!(outlier.tenths(start), 10);
        let mut now = start;
        let mut durations = Vec::new();
        for _ in 0..12 {
            outlier.eject(now);
            assert!(outlier.is_ejected(now));
            let until = outlier.ejected_until.unwrap();
            durations.push(until - now);
            now = until;
            assert!(!outlier.is_ejected(now));
            assert_eq!(outlier.tenths(now), 1);
            assert_eq!(outlier.tenths(now + limits::SLOW_START_TIME / 2), 6);
            assert_eq!(outlier.tenths(now + limits::SLOW_START_TIME), 10);
        }
        assert_eq!(durations[0], limits::EJECTION_FIRST);
        assert!(durations.is_sorted());
        assert_eq!(durations[11], limits::EJECTION_LONGEST);
        outlier.eject(now + limits::EJECTION_RESET_TIME);
        let until = outlier.ejected_until.unwrap();
        assert_eq!(
            until - now,
            limits::EJECTION_RESET_TIME + limits::EJECTION_FIRST
        );
    }
}
