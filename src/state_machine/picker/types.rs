//! Types of the picker and its users: endpoint ids, the endpoints that a call has tried, and the
//! endpoint policy.

use crate::limits;

/// Id of an endpoint while it is in the list.
///
/// An id is never used again, so a late report about a removed endpoint affects no new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub(super) u64);

impl EndpointId {
    /// Returns an index below [`limits::MAX_ENDPOINTS`] for tables. Unique in a list of endpoints.
    pub fn index(self) -> usize {
        // Below MAX_ENDPOINTS.
        (self.0 % limits::MAX_ENDPOINTS as u64) as usize
    }

    /// Returns the id as a number, for an atomic; never `u64::MAX`.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Returns the id of an [`EndpointId::number`].
    pub fn from_number(number: u64) -> EndpointId {
        EndpointId(number)
    }
}

/// Set of endpoints that a call has tried and must not try again.
///
/// In lists of more than 64 endpoints some share a bit. Then a call may skip an endpoint that it
/// has not tried, but it never repeats one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TriedEndpoints(u64);

impl TriedEndpoints {
    /// Number of endpoints that the set can distinguish.
    pub(super) const BITS: usize = u64::BITS as usize;

    /// Adds an endpoint.
    pub fn add(&mut self, endpoint: EndpointId) {
        self.0 |= 1 << TriedEndpoints::bit(endpoint);
    }

    /// Returns whether the endpoint was added.
    pub fn contains(self, endpoint: EndpointId) -> bool {
        self.0 & (1 << TriedEndpoints::bit(endpoint)) != 0
    }

    /// Returns the bit of an endpoint.
    pub(super) fn bit(endpoint: EndpointId) -> u64 {
        endpoint.0 % TriedEndpoints::BITS as u64
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Rule that selects the endpoint of a call (`--endpoint-policy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndpointPolicy {
    /// One random endpoint until it fails (E1).
    #[default]
    Random,
    /// Endpoints in turn.
    RoundRobin,
    /// Endpoints in turn, by weight.
    Weighted,
    /// The endpoint with the fewest open calls.
    LeastLoaded,
    /// The endpoint of the leader. While the leader is unknown, one endpoint until it fails.
    Leader,
}

impl EndpointPolicy {
    /// All policies with their names.
    pub const ALL: [(&'static str, EndpointPolicy); 5] = [
        ("random", EndpointPolicy::Random),
        ("round-robin", EndpointPolicy::RoundRobin),
        ("weighted", EndpointPolicy::Weighted),
        ("least-loaded", EndpointPolicy::LeastLoaded),
        ("leader", EndpointPolicy::Leader),
    ];

    /// Returns whether the policy selects an endpoint for each call, so that endpoints can be
    /// compared. Otherwise one endpoint serves all calls.
    pub fn balances(self) -> bool {
        match self {
            EndpointPolicy::Random | EndpointPolicy::Leader => false,
            EndpointPolicy::RoundRobin | EndpointPolicy::Weighted | EndpointPolicy::LeastLoaded => {
                true
            }
        }
    }

    /// Returns the name, as in the flag.
    pub fn name(self) -> &'static str {
        let named = EndpointPolicy::ALL
            .iter()
            .find(|(_, policy)| *policy == self);
        named.map_or("", |(name, _)| name)
    }
}
