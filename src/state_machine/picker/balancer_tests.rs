//! Tests of the picker with balancing policies: shares, ejection and return of endpoints, compared
//! with a simple model, and a simulation of endpoints that fail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Balancer, Cause, EndpointId, Picker, Policy, STEPS, Seen, Share, Standing, step};
use crate::limits;

fn picker(policy: Policy, weights: &[u32]) -> (Picker, Vec<EndpointId>) {
    let mut picker = Picker::new(policy);
    let ids = weights.iter().map(|w| picker.add(*w).unwrap()).collect();
    (picker, ids)
}

fn seen(latency: Duration, answered: u64, failed: u64, open: u64) -> Seen {
    let mut seen = Seen {
        failed,
        open,
        answered: [0; STEPS],
    };
    seen.answered[step(latency)] = answered;
    seen
}

fn well() -> Seen {
    seen(Duration::from_millis(1), 100, 0, 2)
}

fn weights(shares: &[Share]) -> Vec<u32> {
    shares.iter().map(|share| share.weight).collect()
}

#[test]
fn weights_apply_to_the_weighted_policy_only() {
    let now = Instant::now();
    let (weighted, _) = picker(Policy::Weighted, &[1, 3, 6]);
    assert_eq!(weights(&weighted.shares(now)), [10, 30, 60]);
    for policy in [Policy::RoundRobin, Policy::LeastLoaded] {
        let (picker, _) = picker(policy, &[1, 3, 6]);
        assert_eq!(weights(&picker.shares(now)), [10, 10, 10]);
    }
    for policy in [Policy::Random, Policy::Leader] {
        let (picker, _) = picker(policy, &[1, 3, 6]);
        assert_eq!(picker.shares(now), []);
    }
}

#[test]
fn an_outlier_is_ejected_and_returns_gradually() {
    let mut now = Instant::now();
    let (mut picker, ids) = picker(Policy::RoundRobin, &[1, 1, 1]);
    let slow = seen(Duration::from_millis(50), 30, 0, 2);
    let ejected = picker.saw(&[(ids[0], well()), (ids[1], slow), (ids[2], well())], now);
    assert_eq!(ejected, Some((ids[1], Cause::Latency)));
    assert_eq!(picker.standing(ids[1], now), Some(Standing::Ejected));
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
            picker.standing(ids[1], now),
            Some(Standing::Balanced(tenth))
        );
        now += limits::SLOW_START_TIME / 10;
    }
    assert_eq!(last, 10);
}

#[test]
fn a_failed_endpoint_returns_gradually() {
    let mut now = Instant::now();
    let (mut picker, ids) = picker(Policy::LeastLoaded, &[1, 1]);
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
    let (mut picker, ids) = picker(Policy::RoundRobin, &[1, 1]);
    let broken = seen(Duration::from_millis(1), 50, 50, 2);
    let ejected = picker.saw(&[(ids[0], well()), (ids[1], broken)], now);
    assert_eq!(ejected, Some((ids[1], Cause::Errors)));
    picker.failed(ids[0], Duration::ZERO, now, 0);
    let shares = picker.shares(now);
    assert_eq!((shares.len(), shares[0].endpoint), (1, ids[1]));
    assert_eq!(picker.pick(now, 3), super::Pick::Use(ids[1]));
    let tried = super::Tried::default();
    assert_eq!(picker.other(now, tried, 3), Some(ids[1]));
}

#[test]
fn policies_with_an_active_endpoint_eject_none() {
    let now = Instant::now();
    for policy in [Policy::Random, Policy::Leader] {
        let (mut picker, ids) = picker(policy, &[1, 1, 1]);
        let broken = seen(Duration::from_millis(1), 0, 100, 2);
        let ejected = picker.saw(&[(ids[0], well()), (ids[1], broken), (ids[2], well())], now);
        assert_eq!(ejected, None);
    }
}

#[test]
fn the_leader_serves_unless_it_has_failed() {
    let now = Instant::now();
    let (mut picker, ids) = picker(Policy::Leader, &[1, 1, 1]);
    picker.pick(now, 0);
    for leader in [2, 0, 1] {
        picker.leads(ids[leader], now);
        assert_eq!(picker.pick(now, 5), super::Pick::Use(ids[leader]));
    }
    picker.failed(ids[1], Duration::ZERO, now, 0);
    let super::Pick::Use(other) = picker.pick(now, 0) else {
        panic!("two endpoints are left")
    };
    assert_ne!(other, ids[1]);
    // The report about the leader is older than its failure.
    picker.leads(ids[1], now);
    assert_eq!(picker.current(), Some(other));
    picker.connected(ids[1], now);
    picker.leads(ids[1], now);
    assert_eq!(picker.current(), Some(ids[1]));
    // Other policies ignore the leader.
    let (mut random, ids) = self::picker(Policy::Random, &[1, 1]);
    let super::Pick::Use(active) = random.pick(now, 0) else {
        panic!("two endpoints exist")
    };
    random.leads(*ids.iter().find(|id| **id != active).unwrap(), now);
    assert_eq!(random.current(), Some(active));
}

/// Behavior of a simulated endpoint.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Well,
    Slow,
    Broken,
    Silent,
    /// It cannot be reached.
    Unreachable,
}

fn moods() -> impl Strategy<Value = Mood> {
    prop_oneof![
        4 => Just(Mood::Well),
        1 => Just(Mood::Slow),
        1 => Just(Mood::Broken),
        1 => Just(Mood::Silent),
        1 => Just(Mood::Unreachable),
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
        steps in prop::collection::vec((prop::collection::vec(moods(), 6), 0u64..8, any::<u64>()), 1..60),
    ) {
        let policy = [Policy::RoundRobin, Policy::Weighted, Policy::LeastLoaded][policy];
        let (mut picker, mut ids) = picker(policy, &vec![2; count]);
        let mut now = Instant::now();
        let mut rests: BTreeMap<EndpointId, Instant> = BTreeMap::new();
        for (moods, ticks, chance) in steps {
            match chance % 8 {
                0 if ids.len() < 6 => ids.push(picker.add(1 + (chance % 5) as u32).unwrap()),
                1 if ids.len() > 1 => {
                    let removed = ids.remove(chance as usize % ids.len());
                    picker.remove(removed);
                    rests.remove(&removed);
                }
                _ => {}
            }
            for _ in 0..ticks {
                now += limits::OUTLIER_TICK;
                let mut all = Vec::new();
                for (id, mood) in ids.iter().zip(&moods) {
                    let takes = picker.shares(now).iter().any(|s| s.endpoint == *id);
                    let seen = match mood {
                        _ if !takes => Seen::default(),
                        Mood::Well => well(),
                        Mood::Slow => seen(Duration::from_millis(200), 30, 0, 5),
                        Mood::Broken => seen(Duration::from_millis(1), 10, 40, 1),
                        Mood::Silent => seen(Duration::ZERO, 0, 0, 9),
                        Mood::Unreachable => {
                            picker.failed(*id, Duration::ZERO, now, chance);
                            if rests.get(id).is_none_or(|u| *u <= now) {
                                rests.insert(*id, now + limits::BACKOFF_FIRST / 2);
                            }
                            Seen::default()
                        }
                    };
                    all.push((*id, seen));
                }
                let ejected = picker.saw(&all, now);
                if let Some((id, cause)) = ejected {
                    // The cause may be some ticks old, but the endpoint receives calls.
                    let n = ids.iter().position(|i| *i == id).unwrap();
                    prop_assert!(!matches!(moods[n], Mood::Unreachable), "{cause:?}");
                }
                let standings: Vec<Standing> =
                    ids.iter().map(|id| picker.standing(*id, now).unwrap()).collect();
                let out = standings.iter().filter(|s| **s == Standing::Ejected).count();
                // Checked when an endpoint is ejected; others may be removed afterwards.
                if ejected.is_some() {
                    prop_assert!(out <= ids.len() / 2 && out < ids.len());
                }
                let shares = picker.shares(now);
                prop_assert!(shares.iter().all(|s| s.weight > 0 && ids.contains(&s.endpoint)));
                let rest = standings.iter().filter(|s| **s == Standing::Backoff).count();
                prop_assert_eq!(shares.is_empty(), rest == ids.len());
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
            let all: Vec<_> = ids.iter().map(|id| (*id, well())).collect();
            picker.saw(&all, now);
        }
        prop_assert_eq!(picker.shares(now).len(), ids.len());
        prop_assert!(ids.iter().all(|id| picker.standing(*id, now) == Some(Standing::Balanced(10))));
    }

    /// The calls of all workers are distributed by weight.
    #[test]
    fn calls_are_distributed_by_weight(weights in prop::collection::vec(1u32..20, 2..6), workers in 1usize..5) {
        let (picker, ids) = picker(Policy::Weighted, &weights);
        let shares = picker.shares(Instant::now());
        let mut spreads = vec![Balancer::new(Policy::Weighted); workers];
        spreads.iter_mut().for_each(|spread| spread.set(&shares));
        let mut counts: BTreeMap<EndpointId, u64> = BTreeMap::new();
        let rounds = 50;
        let all: u32 = weights.iter().sum();
        for spread in &mut spreads {
            for _ in 0..rounds * all {
                *counts.entry(spread.choose(|_| Some(0)).unwrap()).or_default() += 1;
            }
        }
        for (id, weight) in ids.iter().zip(&weights) {
            // Whole rounds, so the counts are exact.
            let expected = u64::from(rounds * weight) * workers as u64;
            prop_assert_eq!(counts[id], expected);
        }
    }
}
