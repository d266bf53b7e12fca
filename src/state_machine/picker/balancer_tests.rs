//! Tests of the picker with balancing policies: shares, ejection and return of endpoints, compared
//! with a simple model, and a simulation of endpoints that fail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{
    Balancer, CallOutcomes, EjectionCause, EndpointId, EndpointPolicy, EndpointState,
    LATENCY_STEPS, Picker, Share, latency_step,
};
use crate::limits;

fn picker(policy: EndpointPolicy, weights: &[u32]) -> (Picker, Vec<EndpointId>) {
    let mut picker = Picker::new(policy);
    let ids = weights.iter().map(|w| picker.add(*w).unwrap()).collect();
    (picker, ids)
}

fn calls(latency: Duration, answered: u64, failed: u64, open: u64) -> CallOutcomes {
    let mut calls = CallOutcomes {
        failed,
        open,
        answered: [0; LATENCY_STEPS],
    };
    calls.answered[latency_step(latency)] = answered;
    calls
}

fn healthy() -> CallOutcomes {
    calls(Duration::from_millis(1), 100, 0, 2)
}

fn weights(shares: &[Share]) -> Vec<u32> {
    shares.iter().map(|share| share.weight).collect()
}

#[test]
fn weights_apply_to_the_weighted_policy_only() {
    let now = Instant::now();
    let (weighted, _) = picker(EndpointPolicy::Weighted, &[1, 3, 6]);
    assert_eq!(weights(&weighted.shares(now)), [10, 30, 60]);
    for policy in [EndpointPolicy::RoundRobin, EndpointPolicy::LeastLoaded] {
        let (picker, _) = picker(policy, &[1, 3, 6]);
        assert_eq!(weights(&picker.shares(now)), [10, 10, 10]);
    }
    for policy in [EndpointPolicy::Random, EndpointPolicy::Leader] {
        let (picker, _) = picker(policy, &[1, 3, 6]);
        assert_eq!(picker.shares(now), []);
    }
}

#[test]
fn an_outlier_is_ejected_and_returns_gradually() {
    let mut now = Instant::now();
    let (mut picker, ids) = picker(EndpointPolicy::RoundRobin, &[1, 1, 1]);
    let slow = calls(Duration::from_millis(50), 30, 0, 2);
    let ejected = picker.record_tick(
        &[(ids[0], healthy()), (ids[1], slow), (ids[2], healthy())],
        now,
    );
    assert_eq!(ejected, Some((ids[1], EjectionCause::Latency)));
    assert_eq!(picker.state(ids[1], now), Some(EndpointState::Ejected));
    let shares: Vec<EndpointId> = picker.shares(now).iter().map(|s| s.endpoint).collect();
    assert_eq!(shares, [ids[0], ids[2]]);
    now += limits::EJECTION_FIRST;
    let mut last = 0;
    for tenth in 1..=10 {
        let weights = weights(&picker.shares(now));
        assert_eq!((weights[0], weights[2]), (10, 10));
        assert!(weights[1] > last, "{weights:?}");
        last = weights[1];
        assert_eq!(
            picker.state(ids[1], now),
            Some(EndpointState::Balanced(tenth))
        );
        now += limits::SLOW_START_TIME / 10;
    }
    assert_eq!(last, 10);
}

#[test]
fn a_failed_endpoint_returns_gradually() {
    let mut now = Instant::now();
    let (mut picker, ids) = picker(EndpointPolicy::LeastLoaded, &[1, 1]);
    picker.failed(ids[0], Duration::ZERO, now, 0);
    assert_eq!(weights(&picker.shares(now)), [10]);
    now += Duration::from_secs(30);
    picker.connected(ids[0], now);
    assert_eq!(weights(&picker.shares(now)), [1, 10]);
    now += limits::SLOW_START_TIME;
    assert_eq!(weights(&picker.shares(now)), [10, 10]);
}

#[test]
fn an_ejected_endpoint_still_serves_if_there_is_no_other() {
    let now = Instant::now();
    let (mut picker, ids) = picker(EndpointPolicy::RoundRobin, &[1, 1]);
    let broken = calls(Duration::from_millis(1), 50, 50, 2);
    let ejected = picker.record_tick(&[(ids[0], healthy()), (ids[1], broken)], now);
    assert_eq!(ejected, Some((ids[1], EjectionCause::Errors)));
    picker.failed(ids[0], Duration::ZERO, now, 0);
    let shares = picker.shares(now);
    assert_eq!((shares.len(), shares[0].endpoint), (1, ids[1]));
    assert_eq!(picker.pick(now, 3), super::Pick::Use(ids[1]));
    let tried = super::TriedEndpoints::default();
    assert_eq!(picker.pick_other(now, tried, 3), Some(ids[1]));
}

#[test]
fn policies_with_an_active_endpoint_eject_none() {
    let now = Instant::now();
    for policy in [EndpointPolicy::Random, EndpointPolicy::Leader] {
        let (mut picker, ids) = picker(policy, &[1, 1, 1]);
        let broken = calls(Duration::from_millis(1), 0, 100, 2);
        let ejected = picker.record_tick(
            &[(ids[0], healthy()), (ids[1], broken), (ids[2], healthy())],
            now,
        );
        assert_eq!(ejected, None);
    }
}

#[test]
fn the_leader_serves_unless_it_has_failed() {
    let now = Instant::now();
    let (mut picker, ids) = picker(EndpointPolicy::Leader, &[1, 1, 1]);
    picker.pick(now, 0);
    for leader in [2, 0, 1] {
        picker.set_leader(ids[leader], now);
        assert_eq!(picker.pick(now, 5), super::Pick::Use(ids[leader]));
    }
    picker.failed(ids[1], Duration::ZERO, now, 0);
    let super::Pick::Use(other) = picker.pick(now, 0) else {
        panic!("two endpoints are left")
    };
    assert_ne!(other, ids[1]);
    // The report about the leader is older than its failure.
    picker.set_leader(ids[1], now);
    assert_eq!(picker.current(), Some(other));
    picker.connected(ids[1], now);
    picker.set_leader(ids[1], now);
    assert_eq!(picker.current(), Some(ids[1]));
    // Other policies ignore the leader.
    let (mut random, ids) = self::picker(EndpointPolicy::Random, &[1, 1]);
    let super::Pick::Use(active) = random.pick(now, 0) else {
        panic!("two endpoints exist")
    };
    random.set_leader(*ids.iter().find(|id| **id != active).unwrap(), now);
    assert_eq!(random.current(), Some(active));
}

/// Behavior of a simulated endpoint.
#[derive(Debug, Clone, Copy)]
enum Behavior {
    Well,
    Slow,
    Broken,
    Silent,
    /// It cannot be reached.
    Unreachable,
}

fn behaviors() -> impl Strategy<Value = Behavior> {
    prop_oneof![
        4 => Just(Behavior::Well),
        1 => Just(Behavior::Slow),
        1 => Just(Behavior::Broken),
        1 => Just(Behavior::Silent),
        1 => Just(Behavior::Unreachable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Endpoints are added, removed, and fail in any way. The following holds:
    /// - At most half of the endpoints are ejected at once.
    /// - An endpoint that is not in backoff is used if there is no other.
    /// - Shares belong to existing endpoints and are never 0.
    /// - A share grows with time until something happens to its endpoint.
    /// - No endpoint of a healthy set is ejected.
    #[test]
    fn at_most_half_of_the_endpoints_are_ejected(
        policy in 0usize..3,
        count in 1usize..6,
        steps in prop::collection::vec((prop::collection::vec(behaviors(), 6), 0u64..8, any::<u64>()), 1..60),
    ) {
        let policy = [EndpointPolicy::RoundRobin, EndpointPolicy::Weighted, EndpointPolicy::LeastLoaded][policy];
        let (mut picker, mut ids) = picker(policy, &vec![2; count]);
        let mut now = Instant::now();
        let mut backoffs: BTreeMap<EndpointId, Instant> = BTreeMap::new();
        for (behaviors, ticks, chance) in steps {
            match chance % 8 {
                0 if ids.len() < 6 => ids.push(picker.add(1 + (chance % 5) as u32).unwrap()),
                1 if ids.len() > 1 => {
                    let removed = ids.remove(chance as usize % ids.len());
                    picker.remove(removed);
                    backoffs.remove(&removed);
                }
                _ => {}
            }
            for _ in 0..ticks {
                now += limits::OUTLIER_TICK;
                let mut all = Vec::new();
                for (id, behavior) in ids.iter().zip(&behaviors) {
                    let takes = picker.shares(now).iter().any(|s| s.endpoint == *id);
                    let calls = match behavior {
                        _ if !takes => CallOutcomes::default(),
                        Behavior::Well => healthy(),
                        Behavior::Slow => calls(Duration::from_millis(200), 30, 0, 5),
                        Behavior::Broken => calls(Duration::from_millis(1), 10, 40, 1),
                        Behavior::Silent => calls(Duration::ZERO, 0, 0, 9),
                        Behavior::Unreachable => {
                            picker.failed(*id, Duration::ZERO, now, chance);
                            if backoffs.get(id).is_none_or(|u| *u <= now) {
                                backoffs.insert(*id, now + limits::BACKOFF_FIRST / 2);
                            }
                            CallOutcomes::default()
                        }
                    };
                    all.push((*id, calls));
                }
                let ejected = picker.record_tick(&all, now);
                if let Some((id, cause)) = ejected {
                    // The cause may be some ticks old, but the endpoint receives calls.
                    let n = ids.iter().position(|i| *i == id).unwrap();
                    prop_assert!(!matches!(behaviors[n], Behavior::Unreachable), "{cause:?}");
                }
                let states: Vec<EndpointState> =
                    ids.iter().map(|id| picker.state(*id, now).unwrap()).collect();
                let out = states.iter().filter(|s| **s == EndpointState::Ejected).count();
                // Checked when an endpoint is ejected; others may be removed afterwards.
                if ejected.is_some() {
                    prop_assert!(out <= ids.len() / 2 && out < ids.len());
                }
                let shares = picker.shares(now);
                prop_assert!(shares.iter().all(|s| s.weight > 0 && ids.contains(&s.endpoint)));
                let in_backoff = states.iter().filter(|s| **s == EndpointState::Backoff).count();
                prop_assert_eq!(shares.is_empty(), in_backoff == ids.len());
                let later = picker.shares(now + limits::OUTLIER_TICK / 2);
                for share in &shares {
                    let grown = later.iter().find(|s| s.endpoint == share.endpoint);
                    prop_assert!(grown.is_none_or(|s| s.weight >= share.weight));
                }
            }
        }
        // All endpoints are healthy for a long time: all have a full share.
        for _ in 0..1_000 {
            now += limits::OUTLIER_TICK;
            ids.iter().for_each(|id| picker.connected(*id, now));
            let all: Vec<_> = ids.iter().map(|id| (*id, healthy())).collect();
            picker.record_tick(&all, now);
        }
        prop_assert_eq!(picker.shares(now).len(), ids.len());
        prop_assert!(ids.iter().all(|id| picker.state(*id, now) == Some(EndpointState::Balanced(10))));
    }

    /// The calls of all workers are distributed by weight.
    #[test]
    fn calls_are_distributed_by_weight(weights in prop::collection::vec(1u32..20, 2..6), workers in 1usize..5) {
        let (picker, ids) = picker(EndpointPolicy::Weighted, &weights);
        let shares = picker.shares(Instant::now());
        let mut balancers = vec![Balancer::new(EndpointPolicy::Weighted); workers];
        balancers.iter_mut().for_each(|balancer| balancer.set_shares(&shares));
        let mut counts: BTreeMap<EndpointId, u64> = BTreeMap::new();
        let rounds = 50;
        let all: u32 = weights.iter().sum();
        for balancer in &mut balancers {
            for _ in 0..rounds * all {
                *counts.entry(balancer.choose(|_| Some(0)).unwrap()).or_default() += 1;
            }
        }
        for (id, weight) in ids.iter().zip(&weights) {
            // Whole rounds, so the counts are exact.
            let expected = u64::from(rounds * weight) * workers as u64;
            prop_assert_eq!(counts[id], expected);
        }
    }
}
