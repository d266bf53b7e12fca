//! Health checks: all probes share one check of etcd, and its result is valid for a moment.

use std::time::{Duration, Instant};

/// Decision on a probe.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask<T> {
    /// Answer with this recent result.
    Known(T),
    /// Wait for the result of the check in flight.
    Wait,
    /// Start a check. Its result is for all probes that wait.
    Begin,
}

/// State of one shared check.
#[derive(Debug)]
pub struct Probe<T> {
    /// Last result, and until when it is valid.
    said: Option<(T, Instant)>,
    asking: bool,
}

impl<T> Default for Probe<T> {
    fn default() -> Probe<T> {
        Probe {
            said: None,
            asking: false,
        }
    }
}

impl<T: Clone> Probe<T> {
    /// Handles a probe. After [`ProbeDecision::Start`] the caller must call [`Probe::set_result`] or
    /// [`Probe::cancel`].
    pub fn ask(&mut self, now: Instant) -> Ask<T> {
        match &self.said {
            Some((said, until)) if now < *until => Ask::Known(said.clone()),
            _ if self.asking => Ask::Wait,
            _ => {
                self.asking = true;
                Ask::Begin
            }
        }
    }

    /// Records the result of the check. It is valid for `lifetime`.
    pub fn said(&mut self, said: T, now: Instant, counts: Duration) {
        self.asking = false;
        self.said = Some((said, now + counts));
    }

    /// Records that the check ended without a result. The next probe starts another.
    pub fn gave_up(&mut self) {
        self.asking = false;
    }
}

/// Health as reported to subscribers. A single failed read is no change.
///
/// An election can fail one read, and all proxies of a fleet would send their clients away at once.
#[derive(Debug, Default)]
pub struct Steady {
    /// Consecutive failed reads.
    failures: u32,
}

impl Steady {
    /// Records the result of a read. Returns whether the proxy serves; `None` if that is undecided.
    pub fn went(&mut self, well: bool, enough: u32) -> Option<bool> {
        if well {
            self.failures = 0;
            return Some(true);
        }
        self.failures = self.failures.saturating_add(1);
        (self.failures >= enough).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COUNTS: Duration = Duration::from_millis(10);

    #[derive(Debug, Clone)]
    enum Op {
        Asks,
        Passes(u64),
        Said(bool),
        GaveUp,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => Just(Op::Asks),
            2 => (0..20u64).prop_map(Op::Passes),
            2 => any::<bool>().prop_map(Op::Said),
            1 => Just(Op::GaveUp),
        ]
    }

    proptest! {
        #[test]
        fn one_check_at_a_time_and_no_stale_result(ops in prop::collection::vec(op(), 1..200)) {
            let mut probe = Probe::default();
            let mut now = Instant::now();
            let (mut asking, mut last) = (false, None);
            for op in ops {
                match op {
                    Op::Passes(ms) => now += Duration::from_millis(ms),
                    Op::Asks => {
                        let fresh = last.filter(|(_, at)| now - *at < COUNTS);
                        let want = match fresh {
                            Some((said, _)) => Ask::Known(said),
                            None if asking => Ask::Wait,
                            None => Ask::Begin,
                        };
                        asking |= want == Ask::Begin;
                        prop_assert_eq!(probe.ask(now), want);
                    }
                    Op::Said(said) if asking => {
                        asking = false;
                        last = Some((said, now));
                        probe.said(said, now, COUNTS);
                    }
                    Op::GaveUp if asking => {
                        asking = false;
                        probe.gave_up();
                    }
                    Op::Said(_) | Op::GaveUp => {}
                }
            }
        }
    }

    #[test]
    fn one_failure_is_no_change_and_one_success_is_enough() {
        let mut steady = Steady::default();
        assert_eq!(steady.went(false, 2), None);
        assert_eq!(steady.went(true, 2), Some(true));
        assert_eq!(steady.went(false, 2), None);
        assert_eq!(steady.went(false, 2), Some(false));
        assert_eq!(steady.went(false, 2), Some(false));
        assert_eq!(steady.went(true, 2), Some(true));
    }
}
