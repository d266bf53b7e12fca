//! Balancer: selects an endpoint for each call, for one worker and a balancing policy.
//!
//! Each worker has its own balancer, so that no shared memory is written per call. The picker
//! decides which endpoints receive calls, and their shares. The balancer selects only endpoints to
//! which the worker has a connection; a call does not wait for another endpoint.

use super::types::{EndpointId, EndpointPolicy};

/// Share of the calls of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Endpoint of the share.
    pub endpoint: EndpointId,
    /// Weight relative to the other shares; never 0.
    pub weight: u32,
}

/// Smooth weighted round-robin, or least-loaded selection, over the current shares.
#[derive(Debug, Clone)]
pub struct Balancer {
    policy: EndpointPolicy,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone)]
struct Candidate {
    share: Share,
    /// Grows by the weight with each selection, and falls by the sum of all weights when the
    /// endpoint is selected. So the turns of an endpoint are spread evenly.
    credit: i64,
}

impl Balancer {
    /// Creates a balancer without endpoints.
    pub fn new(policy: EndpointPolicy) -> Balancer {
        Balancer {
            policy,
            candidates: Vec::new(),
        }
    }

    /// Sets the shares. The credit of an endpoint that already had a share is unchanged.
    pub fn set_shares(&mut self, shares: &[Share]) {
        let candidate = |share: &Share| {
            let previous = self
                .candidates
                .iter()
                .find(|t| t.share.endpoint == share.endpoint);
            Candidate {
                share: *share,
                credit: previous.map_or(0, |candidate| candidate.credit),
            }
        };
        self.candidates = shares.iter().map(candidate).collect();
    }

    /// Returns the endpoints that receive calls.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.candidates
            .iter()
            .map(|candidate| candidate.share.endpoint)
    }

    /// Selects the endpoint of the next call.
    ///
    /// `calls` returns the open calls of an endpoint; `None` if it cannot be used now.
    pub fn choose(&mut self, calls: impl Fn(EndpointId) -> Option<u64>) -> Option<EndpointId> {
        let mut all = 0;
        let mut chosen: Option<(usize, u64)> = None;
        for n in 0..self.candidates.len() {
            let Some(open) = calls(self.candidates[n].share.endpoint) else {
                continue;
            };
            let candidate = &mut self.candidates[n];
            candidate.credit += i64::from(candidate.share.weight);
            all += i64::from(candidate.share.weight);
            if chosen.is_none_or(|(best, best_open)| self.is_better((n, open), (best, best_open))) {
                chosen = Some((n, open));
            }
        }
        let candidate = &mut self.candidates[chosen?.0];
        candidate.credit -= all;
        Some(candidate.share.endpoint)
    }

    fn is_better(&self, (n, open): (usize, u64), (best, best_open): (usize, u64)) -> bool {
        let (candidate, best) = (&self.candidates[n], &self.candidates[best]);
        let by_turn = candidate.credit > best.credit;
        if self.policy != EndpointPolicy::LeastLoaded {
            return by_turn;
        }
        // Load with this call, relative to the weight; cross-multiplied. Ties go by turn.
        let load = (u128::from(open) + 1) * u128::from(best.share.weight);
        let best_load = (u128::from(best_open) + 1) * u128::from(candidate.share.weight);
        load < best_load || load == best_load && by_turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn shares(weights: &[u32]) -> Vec<Share> {
        let share = |(n, weight): (usize, &u32)| Share {
            endpoint: EndpointId(n as u64),
            weight: *weight,
        };
        weights.iter().enumerate().map(share).collect()
    }

    fn balancer(policy: EndpointPolicy, weights: &[u32]) -> Balancer {
        let mut balancer = Balancer::new(policy);
        balancer.set_shares(&shares(weights));
        balancer
    }

    #[test]
    fn round_robin_takes_turns() {
        let mut balancer = balancer(EndpointPolicy::RoundRobin, &[10, 10, 10]);
        let order: Vec<u64> = (0..6)
            .map(|_| balancer.choose(|_| Some(0)).unwrap().0)
            .collect();
        assert_eq!(order[..3], order[3..]);
        assert_eq!(order[..3].iter().sum::<u64>(), 3);
    }

    #[test]
    fn least_loaded_is_selected_and_ties_take_turns() {
        let mut balancer = balancer(EndpointPolicy::LeastLoaded, &[10, 10, 10]);
        let loads = [4, 1, 2];
        let chosen = balancer.choose(|e| Some(loads[e.index()]));
        assert_eq!(chosen, Some(EndpointId(1)));
        let mut counts = BTreeMap::new();
        for _ in 0..300 {
            *counts
                .entry(balancer.choose(|_| Some(0)).unwrap())
                .or_insert(0) += 1;
        }
        assert!(
            counts.values().all(|count| (99..=101).contains(count)),
            "{counts:?}"
        );
        // An endpoint that has just returned takes a tenth of the others' calls.
        balancer.set_shares(&shares(&[10, 1, 10]));
        let loads = [4, 0, 4];
        let chosen = balancer.choose(|e| Some(loads[e.index()]));
        assert_ne!(chosen, Some(EndpointId(1)));
        let loads = [8, 0, 12];
        assert_eq!(
            balancer.choose(|e| Some(loads[e.index()])),
            Some(EndpointId(0))
        );
        let loads = [10, 0, 12];
        assert_eq!(
            balancer.choose(|e| Some(loads[e.index()])),
            Some(EndpointId(1))
        );
    }

    #[test]
    fn an_unusable_endpoint_is_skipped_and_gains_no_credit() {
        let mut balancer = balancer(EndpointPolicy::RoundRobin, &[1, 1]);
        for _ in 0..1000 {
            let only = |e: EndpointId| (e.0 == 0).then_some(0);
            assert_eq!(balancer.choose(only), Some(EndpointId(0)));
        }
        let after: Vec<u64> = (0..10)
            .map(|_| balancer.choose(|_| Some(0)).unwrap().0)
            .collect();
        assert_eq!(after.iter().sum::<u64>(), 5);
        assert_eq!(balancer.choose(|_| None), None);
    }

    proptest! {
        /// Over any number of calls each endpoint receives its share, within one round of all
        /// weights, and waits no longer than that for a turn.
        #[test]
        fn each_endpoint_receives_its_share(
            weights in prop::collection::vec(1u32..50, 1..8),
            calls in 1u64..2_000,
        ) {
            let mut balancer = balancer(EndpointPolicy::Weighted, &weights);
            let all: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let mut counts = vec![0u64; weights.len()];
            for call in 1..=calls {
                counts[balancer.choose(|_| Some(0)).unwrap().index()] += 1;
                for (n, weight) in weights.iter().enumerate() {
                    // Smooth: never off the share by more than a few calls.
                    let part = call * u64::from(*weight);
                    let off = (counts[n] * all).abs_diff(part);
                    prop_assert!(off <= all * weights.len() as u64, "{counts:?} of {weights:?}");
                }
            }
        }

        /// With changing shares, only a usable endpoint with a share is selected, and one is
        /// selected if there is any.
        #[test]
        fn only_usable_endpoints_are_selected(
            policy in 0usize..3,
            steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u32>()), 1..200),
        ) {
            let policy = [EndpointPolicy::RoundRobin, EndpointPolicy::Weighted, EndpointPolicy::LeastLoaded][policy];
            let mut balancer = Balancer::new(policy);
            for (there, up, seed) in steps {
                let mut rng = fastrand::Rng::with_seed(u64::from(seed));
                let all = (0..8u64).filter(|n| there & (1 << n) != 0);
                let shares: Vec<Share> = all
                    .map(|n| Share { endpoint: EndpointId(n), weight: rng.u32(1..1000) })
                    .collect();
                balancer.set_shares(&shares);
                let loads: Vec<u64> = (0..8).map(|_| rng.u64(0..100)).collect();
                for _ in 0..10 {
                    let usable = |e: EndpointId| (up & (1 << e.0) != 0).then_some(loads[e.index()]);
                    match balancer.choose(usable) {
                        Some(e) => {
                            prop_assert!(there & up & (1 << e.0) != 0);
                            if policy == EndpointPolicy::LeastLoaded {
                                let load = |s: &Share| (loads[s.endpoint.index()] + 1) as f64 / f64::from(s.weight);
                                let usable = shares.iter().filter(|s| up & (1 << s.endpoint.0) != 0);
                                let least = usable.map(load).fold(f64::MAX, f64::min);
                                let own = shares.iter().find(|s| s.endpoint == e).unwrap();
                                prop_assert!(load(own) <= least * 1.000_001);
                            }
                        }
                        None => prop_assert_eq!(there & up, 0),
                    }
                }
            }
        }
    }
}
