//! Which endpoint serves: one, picked at random, until it fails; then another (E1).
//!
//! A failed endpoint rests for a backoff with jitter (E4) and is then a candidate like any
//! other. The machine knows endpoints by their place in the list only. It leaves connections,
//! and what counts as a failure, to `upstream/`.

use std::time::{Duration, Instant};

use crate::limits;

/// Endpoints a call does not want again: those it has tried. Lists longer than 64 share bits,
/// which can only make a call overlook an endpoint, never choose a wrong one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    /// Adds an endpoint.
    pub fn add(&mut self, endpoint: usize) {
        self.0 |= 1 << (endpoint % 64);
    }

    /// Whether the endpoint was added.
    pub fn contains(self, endpoint: usize) -> bool {
        self.0 & (1 << (endpoint % 64)) != 0
    }

    /// Whether nothing was added.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What to do for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Use this endpoint.
    Use(usize),
    /// All endpoints rest; none may be dialed before this time.
    Wait(Instant),
}

/// The state of all endpoints.
#[derive(Debug, Clone)]
pub struct Picker {
    endpoints: Vec<Health>,
    current: Option<usize>,
    /// The last that served and failed.
    failed_last: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Health {
    /// In a row, for the backoff.
    failures: u32,
    /// Not a candidate before.
    rests_until: Option<Instant>,
}

impl Picker {
    /// For a list of `count` endpoints, at least one.
    pub fn new(count: usize) -> Picker {
        assert!(
            count > 0,
            "an empty endpoint list is refused when options are resolved"
        );
        Picker {
            endpoints: vec![Health::default(); count],
            current: None,
            failed_last: None,
        }
    }

    /// The endpoint that serves now, if one was picked and has not failed.
    pub fn current(&self) -> Option<usize> {
        self.current
    }

    /// The endpoint for the next call. `chance` is any random number.
    pub fn pick(&mut self, now: Instant, chance: u64) -> Pick {
        if let Some(current) = self.current {
            return Pick::Use(current);
        }
        // The one that failed last is the last choice, however short its rest: what made it fail
        // mostly lasts longer.
        let mut others = Tried::default();
        self.failed_last.into_iter().for_each(|e| others.add(e));
        let candidate = self.candidate(now, others, chance);
        match candidate.or_else(|| self.candidate(now, Tried::default(), chance)) {
            Some(endpoint) => {
                self.current = Some(endpoint);
                Pick::Use(endpoint)
            }
            None => Pick::Wait(self.first_return().unwrap_or(now)),
        }
    }

    /// An endpoint for the second try of a call, none of `tried`; the serving one if possible.
    pub fn other(&self, now: Instant, tried: Tried, chance: u64) -> Option<usize> {
        match self.current {
            Some(current) if !tried.contains(current) => Some(current),
            _ => self.candidate(now, tried, chance),
        }
    }

    /// The endpoint could not be reached, broke, or stalled; `lived` is how long its connection
    /// had been up. Reports that come while it already rests change nothing: many calls and
    /// workers report one event.
    pub fn failed(&mut self, endpoint: usize, lived: Duration, now: Instant, chance: u64) {
        if self.current == Some(endpoint) {
            self.current = None;
            self.failed_last = Some(endpoint);
        }
        let health = &mut self.endpoints[endpoint];
        if health.rests_until.is_some_and(|until| now < until) {
            return;
        }
        if lived >= limits::STEADY_TIME {
            health.failures = 0;
        }
        health.rests_until = Some(now + backoff(health.failures, chance));
        health.failures = health.failures.saturating_add(1);
    }

    /// A connection to the endpoint is up: it may be used at once, but its failures are
    /// forgotten only when a connection has lived for a while.
    pub fn connected(&mut self, endpoint: usize) {
        self.endpoints[endpoint].rests_until = None;
    }

    fn candidate(&self, now: Instant, tried: Tried, chance: u64) -> Option<usize> {
        let ready = |e: &usize| {
            let rests = self.endpoints[*e]
                .rests_until
                .is_some_and(|until| now < until);
            !tried.contains(*e) && !rests
        };
        let count = (0..self.endpoints.len()).filter(ready).count();
        let place = usize::try_from(chance % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0);
        (0..self.endpoints.len()).filter(ready).nth(place)
    }

    fn first_return(&self) -> Option<Instant> {
        self.endpoints.iter().filter_map(|h| h.rests_until).min()
    }
}

/// The pause after so many failures in a row: doubling, bounded, ±20 %.
pub fn backoff(failures: u32, chance: u64) -> Duration {
    let doubled = limits::BACKOFF_FIRST.saturating_mul(1 << failures.min(16));
    let base = doubled.min(limits::BACKOFF_LONGEST);
    // 80 % to 120 % in 1/1024 steps.
    let jitter = 819 + (chance % 411) as u32;
    base * jitter / 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_serves_until_it_fails() {
        let now = Instant::now();
        let mut picker = Picker::new(3);
        let Pick::Use(first) = picker.pick(now, 7) else {
            panic!("nothing picked")
        };
        assert!((0..50).all(|chance| picker.pick(now, chance) == Pick::Use(first)));
        picker.failed(first, Duration::ZERO, now, 0);
        let Pick::Use(second) = picker.pick(now, 7) else {
            panic!("nothing picked")
        };
        assert_ne!(first, second);
        // The first one's return changes nothing: the second serves until it fails.
        picker.connected(first);
        assert_eq!(
            picker.pick(now + Duration::from_secs(60), 1),
            Pick::Use(second)
        );
    }

    #[test]
    fn every_endpoint_can_be_first() {
        let now = Instant::now();
        let firsts: std::collections::BTreeSet<_> = (0..3)
            .map(|chance| match Picker::new(3).pick(now, chance) {
                Pick::Use(e) => e,
                Pick::Wait(_) => usize::MAX,
            })
            .collect();
        assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn one_event_reported_many_times_is_one_failure() {
        let now = Instant::now();
        let mut picker = Picker::new(1);
        picker.pick(now, 0);
        for _ in 0..100 {
            picker.failed(0, Duration::ZERO, now, 0);
        }
        let Pick::Wait(until) = picker.pick(now, 0) else {
            panic!("it rests")
        };
        assert!(until - now <= limits::BACKOFF_FIRST);
        assert_eq!(picker.pick(until, 0), Pick::Use(0));
    }

    #[test]
    fn backoff_grows_and_is_bounded() {
        assert!(backoff(0, 0) >= limits::BACKOFF_FIRST * 79 / 100);
        for chance in [0, 410, 9999] {
            assert!(backoff(40, chance) <= limits::BACKOFF_LONGEST * 121 / 100);
            assert!(backoff(40, chance) >= limits::BACKOFF_LONGEST * 79 / 100);
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Pick(u64),
        Other(u8, u64),
        Failed(usize, u64, u64),
        Connected(usize),
        Pass(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            any::<u64>().prop_map(Op::Pick),
            (any::<u8>(), any::<u64>()).prop_map(|(t, c)| Op::Other(t, c)),
            (0usize..4, 0u64..30_000, any::<u64>()).prop_map(|(e, l, c)| Op::Failed(e, l, c)),
            (0usize..4).prop_map(Op::Connected),
            (0u64..5_000).prop_map(Op::Pass),
        ];
        prop::collection::vec(op, 0..100)
    }

    proptest! {
        /// Against the naive account of who rests: the serving one never changes without its
        /// own failure, nothing that rests is handed out, a wait ends with a candidate, and no
        /// wait is longer than the longest backoff.
        #[test]
        fn keeps_e1_and_e4(ops in ops()) {
            let mut now = Instant::now();
            let mut picker = Picker::new(4);
            let mut serving: Option<usize> = None;
            let mut failed_last = None;
            let mut rests = [None::<Instant>; 4];
            for op in ops {
                match op {
                    Op::Pick(chance) => match picker.pick(now, chance) {
                        Pick::Use(e) => {
                            if let Some(s) = serving { prop_assert_eq!(s, e); }
                            else {
                                prop_assert!(rests[e].is_none_or(|u| u <= now));
                                prop_assert!(failed_last != Some(e) || (0..4).all(|other| other == e
                                    || rests[other].is_some_and(|u| u > now)));
                            }
                            serving = Some(e);
                        }
                        Pick::Wait(until) => {
                            prop_assert!(serving.is_none());
                            prop_assert!(until > now && until - now <= limits::BACKOFF_LONGEST * 2);
                            prop_assert!((0..4).all(|e| rests[e].is_some_and(|u| u > now)));
                            let mut later = picker.clone();
                            prop_assert!(matches!(later.pick(until, chance), Pick::Use(_)));
                        }
                    },
                    Op::Other(bits, chance) => {
                        let mut tried = Tried::default();
                        (0..4).filter(|e| bits & (1 << e) != 0).for_each(|e| tried.add(e));
                        match picker.other(now, tried, chance) {
                            Some(e) => {
                                prop_assert!(!tried.contains(e));
                                prop_assert!(serving == Some(e) || rests[e].is_none_or(|u| u <= now));
                            }
                            None => prop_assert!((0..4).all(|e| tried.contains(e)
                                || rests[e].is_some_and(|u| u > now))),
                        }
                    }
                    Op::Failed(e, lived, chance) => {
                        picker.failed(e, Duration::from_millis(lived), now, chance);
                        if serving == Some(e) {
                            serving = None;
                            failed_last = Some(e);
                        }
                        if rests[e].is_none_or(|u| u <= now) {
                            rests[e] = picker.endpoints[e].rests_until;
                            prop_assert!(rests[e].is_some_and(|u| u > now));
                        }
                    }
                    Op::Connected(e) => { picker.connected(e); rests[e] = None; }
                    Op::Pass(millis) => now += Duration::from_millis(millis),
                }
                prop_assert_eq!(picker.current(), serving);
            }
        }
    }
}
