//! Health checks: all probes share one check of etcd, and its result is valid for a moment.

use std::time::{Duration, Instant};

/// Decision on a probe.
#[derive(Debug, PartialEq, Eq)]
pub enum ProbeDecision<T> {
    /// Answer with this recent result.
    Known(T),
    /// Wait for the result of the check in flight.
    Wait,
    /// Start a check. Its result is for all probes that wait.
    Start,
}

/// State of one shared check.
#[derive(Debug)]
pub struct Probe<T> {
    /// Last result, and until when it is valid.
    result: Option<(T, Instant)>,
    in_flight: bool,
}

impl<T> Default for Probe<T> {
    fn default() -> Probe<T> {
        Probe {
            result: None,
            in_flight: false,
        }
    }
}

impl<T: Clone> Probe<T> {
    /// Handles a probe. After [`ProbeDecision::Start`] the caller must call [`Probe::set_result`]
    /// or [`Probe::cancel`].
    pub fn request(&mut self, now: Instant) -> ProbeDecision<T> {
        match &self.result {
            Some((result, until)) if now < *until => ProbeDecision::Known(result.clone()),
            _ if self.in_flight => ProbeDecision::Wait,
            _ => {
                self.in_flight = true;
                ProbeDecision::Start
            }
        }
    }

    /// Records the result of the check, which is valid for `lifetime`.
    pub fn set_result(&mut self, result: T, now: Instant, lifetime: Duration) {
        self.in_flight = false;
        self.result = Some((result, now + lifetime));
    }

    /// Records that the check ended without a result. The next probe starts another.
    pub fn cancel(&mut self) {
        self.in_flight = false;
    }
}

/// Health as reported to subscribers. A single failed read is no change.
///
/// An election can fail one read, and all proxies of a fleet would send their clients away at once.
#[derive(Debug, Default)]
pub struct FailureThreshold {
    /// Consecutive failed reads.
    failures: u32,
}

impl FailureThreshold {
    /// Records the result of a read. Returns whether the proxy serves; `None` if that is undecided.
    pub fn record(&mut self, ok: bool, threshold: u32) -> Option<bool> {
        if ok {
            self.failures = 0;
            return Some(true);
        }
        self.failures = self.failures.saturating_add(1);
        (self.failures >= threshold).then_some(false)
    }

    /// Records that reads cannot succeed now, which counts as `threshold` failed reads.
    pub fn record_outage(&mut self, threshold: u32) {
        self.failures = self.failures.max(threshold);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Duration = Duration::from_millis(10);

    #[derive(Debug, Clone)]
    enum Op {
        Probe,
        Pass(u64),
        Result(bool),
        Cancel,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => Just(Op::Probe),
            2 => (0..20u64).prop_map(Op::Pass),
            2 => any::<bool>().prop_map(Op::Result),
            1 => Just(Op::Cancel),
        ]
    }

    proptest! {
        #[test]
        fn one_check_at_a_time_and_no_stale_result(ops in prop::collection::vec(op(), 1..200)) {
            let mut probe = Probe::default();
            let mut now = Instant::now();
            let (mut in_flight, mut last) = (false, None);
            for op in ops {
                match op {
                    Op::Pass(ms) => now += Duration::from_millis(ms),
                    Op::Probe => {
                        let fresh = last.filter(|(_, at)| now - *at < LIFETIME);
                        let want = match fresh {
                            Some((result, _)) => ProbeDecision::Known(result),
                            None if in_flight => ProbeDecision::Wait,
                            None => ProbeDecision::Start,
                        };
                        in_flight |= want == ProbeDecision::Start;
                        prop_assert_eq!(probe.request(now), want);
                    }
                    Op::Result(result) if in_flight => {
                        in_flight = false;
                        last = Some((result, now));
                        probe.set_result(result, now, LIFETIME);
                    }
                    Op::Cancel if in_flight => {
                        in_flight = false;
                        probe.cancel();
                    }
                    Op::Result(_) | Op::Cancel => {}
                }
            }
        }
    }

    #[test]
    fn one_failure_is_no_change_and_one_success_is_enough() {
        let mut steady = FailureThreshold::default();
        assert_eq!(steady.record(false, 2), None);
        assert_eq!(steady.record(true, 2), Some(true));
        assert_eq!(steady.record(false, 2), None);
        assert_eq!(steady.record(false, 2), Some(false));
        assert_eq!(steady.record(false, 2), Some(false));
        assert_eq!(steady.record(true, 2), Some(true));
        steady.record_outage(2);
        assert_eq!(steady.record(false, 2), Some(false));
        assert_eq!(steady.record(true, 2), Some(true));
        assert_eq!(steady.record(false, 2), None);
    }
}
