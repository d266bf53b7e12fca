//! When etcd is asked for its health: many ask, one asks etcd, and its word counts for a moment.

use std::time::{Duration, Instant};

/// What somebody who asks is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask<T> {
    /// This, said a moment ago.
    Known(T),
    /// Etcd is being asked: what it says is for all who wait.
    Wait,
    /// The same, and it is for whoever is told this to ask.
    Begin,
}

/// One question.
#[derive(Debug)]
pub struct Probe<T> {
    /// What was said last, and until when that counts.
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
    /// Somebody asks. After [`Ask::Begin`] comes [`Probe::said`] or [`Probe::gave_up`].
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

    /// Etcd has said this, and it counts for so long.
    pub fn said(&mut self, said: T, now: Instant, counts: Duration) {
        self.asking = false;
        self.said = Some((said, now + counts));
    }

    /// Who was to ask is gone: the next one asks.
    pub fn gave_up(&mut self) {
        self.asking = false;
    }
}

/// Whether those who are told of changes are told that the proxy serves. One read that failed is no change:
/// an election takes one, and all proxies of a fleet would send their clients away at once.
#[derive(Debug, Default)]
pub struct Steady {
    /// Reads that failed since the last that did not.
    failures: u32,
}

impl Steady {
    /// One more read went so; says whether the proxy serves, where that is known now.
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
        fn one_asks_at_a_time_and_nobody_is_told_what_is_old(ops in prop::collection::vec(op(), 1..200)) {
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
    fn one_failure_is_none_and_one_success_is_enough() {
        let mut steady = Steady::default();
        assert_eq!(steady.went(false, 2), None);
        assert_eq!(steady.went(true, 2), Some(true));
        assert_eq!(steady.went(false, 2), None);
        assert_eq!(steady.went(false, 2), Some(false));
        assert_eq!(steady.went(false, 2), Some(false));
        assert_eq!(steady.went(true, 2), Some(true));
    }
}
