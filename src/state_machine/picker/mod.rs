//! Endpoint picker: selects the endpoint of a call (E1).
//!
//! With the policies `random` and `leader` one endpoint is active and serves all calls until it
//! fails. With the others, calls are balanced over all healthy endpoints.
//!
//! A failed endpoint is in backoff, with jitter (E4), and is a candidate again afterwards. With a
//! balancing policy an endpoint that is much slower or fails more often than the others is ejected
//! for a time (`outlier.rs`). At most half of the endpoints are ejected, and an ejected endpoint
//! still serves if there is no other. An endpoint that returns starts with a small share. The
//! picker decides the shares; the balancer of each worker selects endpoints by them
//! (`balancer.rs`).
//!
//! The picker identifies endpoints by the ids that [`Picker::add`] returns. `upstream/` handles
//! connections and decides what counts as a failure.

mod balancer;
#[cfg(test)]
mod balancer_tests;
mod outlier;
mod types;

use std::time::{Duration, Instant};

use crate::limits;

pub use balancer::{Balancer, Share};
use outlier::Outlier;
pub use outlier::{CallOutcomes, EjectionCause, LATENCY_STEPS, latency_step};
pub use types::{EndpointId, EndpointPolicy, TriedEndpoints};

/// Endpoint for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Use this endpoint.
    Use(EndpointId),
    /// All endpoints are in backoff. None may be dialed before this time.
    Wait(Instant),
}

/// State of an endpoint, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// Serves all calls.
    Active,
    /// Receives its share of the calls, in tenths of a full share (1 to 10).
    Balanced(u32),
    /// Would serve if the active endpoint failed.
    Ready,
    /// Has failed and receives no calls now.
    Backoff,
    /// Ejected by outlier detection.
    Ejected,
}

/// State of all endpoints, and the policy.
#[derive(Debug, Clone, Default)]
pub struct Picker {
    policy: EndpointPolicy,
    endpoints: Vec<EndpointEntry>,
    current: Option<EndpointId>,
    /// Last active endpoint that failed.
    failed_last: Option<EndpointId>,
    /// Next id.
    next_id: u64,
}

#[derive(Debug, Clone)]
struct EndpointEntry {
    id: EndpointId,
    /// Consecutive failures, for the backoff.
    failures: u32,
    /// End of the backoff.
    backoff_until: Option<Instant>,
    weight: u32,
    outlier: Outlier,
}

impl EndpointEntry {
    fn is_in_backoff(&self, now: Instant) -> bool {
        self.backoff_until.is_some_and(|until| now < until)
    }
}

impl Picker {
    /// Creates a picker without endpoints.
    pub fn new(policy: EndpointPolicy) -> Picker {
        Picker {
            policy,
            ..Picker::default()
        }
    }

    /// Adds an endpoint with its weight, at least 1.
    ///
    /// Returns `None` if there are [`limits::MAX_ENDPOINTS`].
    pub fn add(&mut self, weight: u32) -> Option<EndpointId> {
        if self.endpoints.len() >= limits::MAX_ENDPOINTS {
            return None;
        }
        // While there is a bit for each endpoint, no bit is shared: otherwise a call that has tried
        // one endpoint would skip the other (E1). The loop ends, because an index or bit is free.
        let own_bit = self.endpoints.len() < TriedEndpoints::BITS;
        let taken = |id: EndpointId| {
            let conflicts = |e: &EndpointEntry| {
                e.id.index() == id.index()
                    || own_bit && TriedEndpoints::bit(e.id) == TriedEndpoints::bit(id)
            };
            self.endpoints.iter().any(conflicts)
        };
        let mut id = EndpointId(self.next_id);
        while taken(id) {
            id.0 += 1;
        }
        self.next_id = id.0 + 1;
        self.endpoints.push(EndpointEntry {
            id,
            failures: 0,
            backoff_until: None,
            weight: weight.max(1),
            outlier: Outlier::default(),
        });
        Some(id)
    }

    /// Sets the weight of an endpoint, at least 1.
    pub fn set_weight(&mut self, endpoint: EndpointId, weight: u32) {
        let mut entries = self.endpoints.iter_mut();
        if let Some(entry) = entries.find(|e| e.id == endpoint) {
            entry.weight = weight.max(1);
        }
    }

    /// Removes an endpoint. The last one stays: the list is never empty.
    pub fn remove(&mut self, endpoint: EndpointId) {
        if self.endpoints.len() <= 1 {
            return;
        }
        self.endpoints.retain(|e| e.id != endpoint);
        self.current.take_if(|current| *current == endpoint);
        self.failed_last.take_if(|last| *last == endpoint);
    }

    /// Returns the active endpoint, if one was picked and has not failed.
    pub fn current(&self) -> Option<EndpointId> {
        self.current
    }

    /// Picks the endpoint of the next call. With a balancing policy this is only a first choice.
    ///
    /// `chance` is a random number.
    pub fn pick(&mut self, now: Instant, chance: u64) -> Pick {
        if let Some(current) = self.current {
            return Pick::Use(current);
        }
        // The endpoint that failed last is the last choice, even if its backoff is over: the cause
        // of a failure usually lasts longer than the backoff.
        let mut others = TriedEndpoints::default();
        self.failed_last.into_iter().for_each(|e| others.add(e));
        let candidate = self.candidate(now, others, chance);
        match candidate.or_else(|| self.candidate(now, TriedEndpoints::default(), chance)) {
            Some(endpoint) => {
                if !self.policy.balances() {
                    self.current = Some(endpoint);
                }
                Pick::Use(endpoint)
            }
            None => Pick::Wait(self.first_backoff_end().unwrap_or(now)),
        }
    }

    /// Picks an endpoint for another attempt of a call, none of `tried`. Prefers the active one.
    pub fn pick_other(
        &self,
        now: Instant,
        tried: TriedEndpoints,
        chance: u64,
    ) -> Option<EndpointId> {
        match self.current {
            Some(current) if !tried.contains(current) => Some(current),
            _ => self.candidate(now, tried, chance),
        }
    }

    /// Records that an endpoint is unreachable, broke or stalled. `lived` is how long its
    /// connection was open.
    ///
    /// A report during the backoff changes nothing, because many calls and workers report one
    /// event. A report about a removed endpoint changes nothing either.
    pub fn failed(&mut self, endpoint: EndpointId, lived: Duration, now: Instant, chance: u64) {
        if self.current == Some(endpoint) {
            self.current = None;
            self.failed_last = Some(endpoint);
        }
        let Some(entry) = self.endpoints.iter_mut().find(|e| e.id == endpoint) else {
            return;
        };
        if entry.is_in_backoff(now) {
            return;
        }
        if lived >= limits::BACKOFF_RESET_TIME {
            entry.failures = 0;
        }
        let until = now + backoff(entry.failures, chance);
        entry.backoff_until = Some(until);
        entry.outlier.readmit_at(until);
        entry.failures = entry.failures.saturating_add(1);
    }

    /// Records a connection to the endpoint: its backoff ends. Its failure count is reset only when
    /// a connection has lived for [`limits::BACKOFF_RESET_TIME`].
    pub fn connected(&mut self, endpoint: EndpointId, now: Instant) {
        if let Some(entry) = self.endpoints.iter_mut().find(|e| e.id == endpoint)
            && entry.backoff_until.take().is_some()
        {
            entry.outlier.readmit_at(now);
        }
    }

    /// Records the endpoint of the leader. With [`EndpointPolicy::Leader`] it becomes active,
    /// unless it is in backoff.
    pub fn set_leader(&mut self, endpoint: EndpointId, now: Instant) {
        let mut ready = self.endpoints.iter().filter(|e| !e.is_in_backoff(now));
        if self.policy == EndpointPolicy::Leader && ready.any(|e| e.id == endpoint) {
            self.current = Some(endpoint);
        }
    }

    /// Records the calls of each endpoint in the last tick.
    ///
    /// Returns the endpoint that this tick ejects, and why.
    pub fn record_tick(
        &mut self,
        seen: &[(EndpointId, CallOutcomes)],
        now: Instant,
    ) -> Option<(EndpointId, EjectionCause)> {
        for entry in &mut self.endpoints {
            if let Some((_, seen)) = seen.iter().find(|(id, _)| *id == entry.id) {
                entry.outlier.push(*seen);
            }
        }
        let ejected = self.endpoints.iter().filter(|e| e.outlier.is_ejected(now));
        if !self.policy.balances() || ejected.count() + 1 > self.endpoints.len() / 2 {
            return None;
        }
        let takes_calls =
            |e: &&mut EndpointEntry| !e.is_in_backoff(now) && !e.outlier.is_ejected(now);
        let mut candidates: Vec<&mut EndpointEntry> =
            self.endpoints.iter_mut().filter(takes_calls).collect();
        let outliers: Vec<&Outlier> = candidates.iter().map(|e| &e.outlier).collect();
        let (worst, cause) = outlier::worst(&outliers)?;
        candidates[worst].outlier.eject(now);
        Some((candidates[worst].id, cause))
    }

    /// Returns the endpoints that receive calls, with their shares. Empty if the policy does not
    /// balance, or if all endpoints are in backoff.
    pub fn shares(&self, now: Instant) -> Vec<Share> {
        if !self.policy.balances() {
            return Vec::new();
        }
        let ready = || self.endpoints.iter().filter(|e| !e.is_in_backoff(now));
        let share = |e: &EndpointEntry| Share {
            endpoint: e.id,
            weight: e.outlier.tenths(now) * self.weight(e),
        };
        let healthy: Vec<Share> = ready()
            .filter(|e| !e.outlier.is_ejected(now))
            .map(share)
            .collect();
        if healthy.is_empty() {
            return ready().map(share).collect();
        }
        healthy
    }

    fn weight(&self, entry: &EndpointEntry) -> u32 {
        match self.policy {
            EndpointPolicy::Weighted => entry.weight,
            _ => 1,
        }
    }

    /// Returns the state of an endpoint; `None` if it is not in the list.
    pub fn state(&self, endpoint: EndpointId, now: Instant) -> Option<EndpointState> {
        let entry = self.endpoints.iter().find(|e| e.id == endpoint)?;
        Some(if self.current == Some(endpoint) {
            EndpointState::Active
        } else if entry.is_in_backoff(now) {
            EndpointState::Backoff
        } else if entry.outlier.is_ejected(now) {
            EndpointState::Ejected
        } else if self.policy.balances() {
            EndpointState::Balanced(entry.outlier.tenths(now))
        } else {
            EndpointState::Ready
        })
    }

    /// Returns a random endpoint that is not in backoff and was not tried. Prefers endpoints that
    /// are not ejected.
    fn candidate(&self, now: Instant, tried: TriedEndpoints, chance: u64) -> Option<EndpointId> {
        let ready = |e: &&EndpointEntry| !tried.contains(e.id) && !e.is_in_backoff(now);
        let healthy = |e: &&EndpointEntry| ready(e) && !e.outlier.is_ejected(now);
        let any_healthy = self.endpoints.iter().any(|e| healthy(&e));
        let eligible = |e: &&EndpointEntry| if any_healthy { healthy(e) } else { ready(e) };
        let count = self.endpoints.iter().filter(eligible).count();
        let index = usize::try_from(chance % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0);
        self.endpoints
            .iter()
            .filter(eligible)
            .nth(index)
            .map(|e| e.id)
    }

    fn first_backoff_end(&self) -> Option<Instant> {
        self.endpoints.iter().filter_map(|e| e.backoff_until).min()
    }
}

/// Returns the pause after `failures` consecutive failures: doubling, bounded, ±20 %.
pub fn backoff(failures: u32, chance: u64) -> Duration {
    let doubled = limits::BACKOFF_FIRST.saturating_mul(1 << failures.min(16));
    let base = doubled.min(limits::BACKOFF_LONGEST);
    // 80 % to 120 % in steps of 1/1024.
    let jitter = 819 + (chance % 411) as u32;
    base * jitter / 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_endpoint_serves_until_it_fails() {
        let now = Instant::now();
        let (mut picker, _) = picker(3);
        let Pick::Use(first) = picker.pick(now, 7) else {
            panic!("nothing picked")
        };
        assert!((0..50).all(|chance| picker.pick(now, chance) == Pick::Use(first)));
        picker.failed(first, Duration::ZERO, now, 0);
        let Pick::Use(second) = picker.pick(now, 7) else {
            panic!("nothing picked")
        };
        assert_ne!(first, second);
        // The return of the first endpoint changes nothing: the second serves until it fails.
        picker.connected(first, now);
        assert_eq!(
            picker.pick(now + Duration::from_secs(60), 1),
            Pick::Use(second)
        );
    }

    #[test]
    fn every_endpoint_can_be_first() {
        let now = Instant::now();
        let firsts: std::collections::BTreeSet<_> = (0..3)
            .map(|chance| match picker(3).0.pick(now, chance) {
                Pick::Use(e) => e.index(),
                Pick::Wait(_) => usize::MAX,
            })
            .collect();
        assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn one_event_reported_many_times_is_one_failure() {
        let now = Instant::now();
        let (mut picker, ids) = picker(1);
        picker.pick(now, 0);
        for _ in 0..100 {
            picker.failed(ids[0], Duration::ZERO, now, 0);
        }
        let Pick::Wait(until) = picker.pick(now, 0) else {
            panic!("the only endpoint is in backoff")
        };
        assert!(until - now <= limits::BACKOFF_FIRST);
        assert_eq!(picker.pick(until, 0), Pick::Use(ids[0]));
    }

    #[test]
    fn backoff_grows_and_is_bounded() {
        assert!(backoff(0, 0) >= limits::BACKOFF_FIRST * 79 / 100);
        for chance in [0, 410, 9999] {
            assert!(backoff(40, chance) <= limits::BACKOFF_LONGEST * 121 / 100);
            assert!(backoff(40, chance) >= limits::BACKOFF_LONGEST * 79 / 100);
        }
    }

    #[test]
    fn ids_are_unique_and_indexes_are_not_shared() {
        let (mut picker, mut ids) = picker(limits::MAX_ENDPOINTS);
        assert_eq!(picker.add(1), None);
        let mut seen: std::collections::BTreeSet<_> = ids.iter().copied().collect();
        for round in 0..1000 {
            let removed = ids.remove(round * 7 % ids.len());
            picker.remove(removed);
            let added = picker.add(1).unwrap();
            assert!(seen.insert(added));
            assert_eq!(removed.index(), added.index(), "the only free index");
            ids.push(added);
        }
    }

    #[test]
    fn tried_endpoints_stay_distinct_when_a_few_are_replaced_often() {
        let (mut picker, mut ids) = picker(3);
        let now = Instant::now();
        for round in 0..1000 {
            // The first endpoint stays.
            picker.remove(ids.remove(1 + round % 2));
            ids.push(picker.add(1).unwrap());
            for id in &ids {
                let mut tried = TriedEndpoints::default();
                tried.add(*id);
                let others = ids.iter().filter(|other| *other != id);
                assert!(
                    others.into_iter().all(|other| !tried.contains(*other)),
                    "{ids:?}"
                );
                assert!(picker.pick_other(now, tried, 0).is_some());
            }
        }
    }

    #[test]
    fn a_late_report_about_a_removed_endpoint_affects_no_other() {
        let now = Instant::now();
        let (mut picker, ids) = picker(2);
        picker.remove(ids[0]);
        let added = picker.add(1).unwrap();
        picker.failed(ids[0], Duration::ZERO, now, 0);
        assert_eq!(picker.state(added, now), Some(EndpointState::Ready));
        assert_eq!(picker.state(ids[1], now), Some(EndpointState::Ready));
        // The last endpoint cannot be removed.
        picker.remove(added);
        picker.remove(ids[1]);
        assert_eq!(picker.pick(now, 0), Pick::Use(ids[1]));
    }

    fn picker(count: usize) -> (Picker, Vec<EndpointId>) {
        let mut picker = Picker::default();
        let ids = (0..count).map(|_| picker.add(1).unwrap()).collect();
        (picker, ids)
    }

    #[derive(Debug, Clone)]
    enum Op {
        Pick(u64),
        Other(u8, u64),
        Failed(usize, u64, u64),
        Connected(usize),
        Pass(u64),
        Add,
        Remove(usize),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            3 => any::<u64>().prop_map(Op::Pick),
            3 => (any::<u8>(), any::<u64>()).prop_map(|(t, c)| Op::Other(t, c)),
            3 => (0usize..6, 0u64..30_000, any::<u64>()).prop_map(|(e, l, c)| Op::Failed(e, l, c)),
            3 => (0usize..6).prop_map(Op::Connected),
            3 => (0u64..5_000).prop_map(Op::Pass),
            1 => Just(Op::Add),
            1 => (0usize..6).prop_map(Op::Remove),
        ];
        prop::collection::vec(op, 0..100)
    }

    proptest! {
        /// Compared with a simple model of the endpoints and their backoffs:
        /// - The active endpoint changes only by its own failure or removal.
        /// - No endpoint in backoff, and no removed one, is picked.
        /// - A wait ends with a candidate and is not longer than the longest backoff.
        #[test]
        fn keeps_e1_and_e4(ops in ops()) {
            let mut now = Instant::now();
            let (mut picker, mut ids) = picker(4);
            let mut active: Option<EndpointId> = None;
            let mut failed_last = None;
            let mut backoffs = std::collections::BTreeMap::new();
            for op in ops {
                let is_ready = |e: &EndpointId| backoffs.get(e).is_none_or(|u: &Instant| *u <= now);
                match op {
                    Op::Pick(chance) => match picker.pick(now, chance) {
                        Pick::Use(e) => {
                            prop_assert!(ids.contains(&e));
                            if let Some(s) = active { prop_assert_eq!(s, e); }
                            else {
                                prop_assert!(is_ready(&e));
                                prop_assert!(failed_last != Some(e)
                                    || !ids.iter().any(|other| *other != e && is_ready(other)));
                            }
                            active = Some(e);
                        }
                        Pick::Wait(until) => {
                            prop_assert!(active.is_none());
                            prop_assert!(until > now && until - now <= limits::BACKOFF_LONGEST * 2);
                            prop_assert!(!ids.iter().any(is_ready));
                            let mut later = picker.clone();
                            prop_assert!(matches!(later.pick(until, chance), Pick::Use(_)));
                        }
                    },
                    Op::Other(bits, chance) => {
                        let mut tried = TriedEndpoints::default();
                        let chosen = ids.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
                        chosen.for_each(|(_, e)| tried.add(*e));
                        match picker.pick_other(now, tried, chance) {
                            Some(e) => {
                                prop_assert!(ids.contains(&e) && !tried.contains(e));
                                prop_assert!(active == Some(e) || is_ready(&e));
                            }
                            None => prop_assert!(!ids.iter().any(|e| !tried.contains(*e) && is_ready(e))),
                        }
                    }
                    Op::Failed(n, lived, chance) => {
                        let e = ids[n % ids.len()];
                        picker.failed(e, Duration::from_millis(lived), now, chance);
                        if active == Some(e) {
                            active = None;
                            failed_last = Some(e);
                        }
                        if is_ready(&e) {
                            let until = picker.endpoints.iter().find(|x| x.id == e).unwrap().backoff_until;
                            prop_assert!(until.is_some_and(|u| u > now));
                            backoffs.insert(e, until.unwrap());
                        }
                        prop_assert_eq!(picker.state(e, now), Some(EndpointState::Backoff));
                    }
                    Op::Connected(n) => {
                        let e = ids[n % ids.len()];
                        picker.connected(e, now);
                        backoffs.remove(&e);
                    }
                    Op::Pass(millis) => now += Duration::from_millis(millis),
                    Op::Add => if ids.len() < 6 { ids.push(picker.add(1).unwrap()) },
                    Op::Remove(n) => {
                        let e = ids[n % ids.len()];
                        picker.remove(e);
                        if ids.len() > 1 {
                            ids.retain(|id| *id != e);
                            backoffs.remove(&e);
                            active.take_if(|s| *s == e);
                        }
                    }
                }
                prop_assert_eq!(picker.current(), active);
            }
        }
    }
}
