//! Which endpoint does much worse than the others, by errors, by latency, or by not answering at all;
//! how long it is left out for that, and how it comes back: slowly.
//!
//! Endpoints are only ever held against the others of the same time: what is slow or broken for all of
//! them is no reason to leave one out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;
/// Steps of latency that are told apart, each twice the one before: the first ends at
/// `FIRST_STEP`, the last has no end.
pub use crate::metrics::LATENCY_STEPS as STEPS;

/// Where the first step ends, in microseconds.
const FIRST_STEP: u64 = 64;

/// The step of a latency.
pub fn step(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let doubled = u64::BITS - (micros / FIRST_STEP).leading_zeros();
    // At most 64.
    (doubled as usize).min(STEPS - 1)
}

/// What was seen of an endpoint's calls, by all workers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Answered, by the step of their latency.
    pub answered: [u64; STEPS],
    /// Failed by what is the endpoint's doing.
    pub failed: u64,
    /// Open at the end.
    pub open: u64,
}

impl Seen {
    /// What has been seen since there was that much.
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

    /// The step that half of the answers are within; `None` without an answer.
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

/// Why an endpoint is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It answers nothing, while others answer.
    Silent,
    /// Too many of its calls fail.
    Errors,
    /// Its answers take too long.
    Latency,
}

impl Cause {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Silent => "silent",
            Cause::Errors => "errors",
            Cause::Latency => "latency",
        }
    }
}

/// One endpoint's part.
#[derive(Debug, Clone, Default)]
pub(super) struct Outlier {
    /// What was seen of late, the latest last.
    window: VecDeque<Seen>,
    out_until: Option<Instant>,
    /// Times it was left out, lately.
    times: u32,
    /// Since when it is back from having failed or been left out.
    back: Option<Instant>,
}

impl Outlier {
    /// One more tick has passed.
    pub(super) fn saw(&mut self, seen: Seen) {
        self.window.push_back(seen);
        if self.window.len() > limits::OUTLIER_TICKS {
            self.window.pop_front();
        }
    }

    /// Whether it is left out.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }

    /// It is left out from now on, each time in a row for twice as long.
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

    /// It takes calls again from then on.
    pub(super) fn comes_back(&mut self, at: Instant) {
        // What is to come back later yet does.
        self.back = Some(self.back.map_or(at, |back| back.max(at)));
        self.window.clear();
    }

    /// Its part of a full share now, in tenths: 1 to 10.
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

    /// Calls were open all the time and none has ended.
    fn is_silent(&self) -> bool {
        let late = self.window.iter().rev().take(limits::SILENT_TICKS);
        self.window.len() >= limits::SILENT_TICKS
            && late
                .into_iter()
                .all(|seen| seen.open > 0 && seen.ended() == 0)
    }
}

/// The one that does worst of those that take calls, if any does so much worse than the others that it
/// is to be left out.
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

/// Whether one does too badly beside the others, and how badly: errors count before latency.
fn judge(own: &Seen, others: &Seen) -> Option<(Cause, u64)> {
    let (ended, their) = (own.ended(), others.ended());
    if ended < limits::OUTLIER_MIN_CALLS || their < limits::OUTLIER_MIN_CALLS {
        return None;
    }
    let often = own.failed * 100 >= ended * limits::OUTLIER_ERROR_PERCENT;
    // Cross-multiplied: its rate is so many times theirs.
    let more = own.failed * their >= limits::OUTLIER_ERROR_FACTOR * others.failed * ended;
    if often && more {
        return Some((Cause::Errors, 1_000 + own.failed * 1_000 / ended));
    }
    let (own, theirs) = (own.median()?, others.median()?);
    let slow =
        own >= theirs + limits::OUTLIER_LATENCY_DOUBLINGS && own > step(limits::OUTLIER_LATENCY);
    // Below 1,000: there are fewer steps.
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
    fn errors_count_where_the_others_have_few() {
        let fine = seen(100, FAST, 0, 1);
        let broken = seen(50, FAST, 50, 1);
        assert_eq!(verdict(&[fine, broken, fine]), Some((1, Cause::Errors)));
        // All alike.
        assert_eq!(verdict(&[broken, broken, broken]), None);
        assert_eq!(verdict(&[fine, fine, fine]), None);
        // Few in all, or few of them.
        let few = seen(1, FAST, 2, 1);
        assert_eq!(verdict(&[fine, few, fine]), None);
        assert_eq!(verdict(&[fine, seen(95, FAST, 5, 1), fine]), None);
        // Nobody to be held against.
        assert_eq!(verdict(&[broken]), None);
        assert_eq!(verdict(&[broken, Seen::default()]), None);
    }

    #[test]
    fn latency_counts_where_the_others_are_fast() {
        let fast = seen(100, FAST, 0, 1);
        let slow = seen(30, Duration::from_millis(60), 0, 1);
        assert_eq!(verdict(&[fast, fast, slow]), Some((2, Cause::Latency)));
        assert_eq!(verdict(&[slow, slow, slow]), None);
        // A little slower, or slower and yet fast.
        assert_eq!(verdict(&[fast, seen(100, FAST * 2, 0, 1), fast]), None);
        let quick = seen(100, Duration::from_micros(50), 0, 1);
        assert_eq!(verdict(&[quick, seen(100, FAST, 0, 1), quick]), None);
        // Half of them fast is fast.
        let mut mixed = seen(60, FAST, 0, 1);
        mixed.answered[step(Duration::from_secs(1))] = 50;
        assert_eq!(verdict(&[fast, mixed, fast]), None);
    }

    #[test]
    fn silence_counts_while_others_answer() {
        let fine = seen(100, FAST, 0, 1);
        let silent = seen(0, FAST, 0, 3);
        assert_eq!(verdict(&[fine, silent]), Some((1, Cause::Silent)));
        assert_eq!(verdict(&[silent, silent]), None);
        // It has not been asked all the time, or not for long.
        let idle = seen(0, FAST, 0, 0);
        let fine = outlier(&[fine; 4]);
        assert_eq!(
            worst(&[&fine, &outlier(&[silent, silent, idle, silent])]),
            None
        );
        assert_eq!(worst(&[&fine, &outlier(&[silent; 3])]), None);
    }

    #[test]
    fn the_worst_goes_first() {
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
    fn each_time_in_a_row_is_longer_and_a_return_is_slow() {
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
