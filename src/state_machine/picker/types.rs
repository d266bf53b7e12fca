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
    pub fn place(self) -> usize {
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
/// In lists of more than 64 endpoints some share a bit. Then a call may skip an endpoint that it has
/// not tried, but it never repeats one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    /// Number of endpoints that the set can distinguish.
    pub(super) const BITS: usize = u64::BITS as usize;

    /// Adds an endpoint.
    pub fn add(&mut self, endpoint: EndpointId) {
        self.0 |= 1 << Tried::bit(endpoint);
    }

    /// Returns whether the endpoint was added.
    pub fn contains(self, endpoint: EndpointId) -> bool {
        self.0 & (1 << Tried::bit(endpoint)) != 0
    }

    /// Returns the bit of an endpoint.
    pub(super) fn bit(endpoint: EndpointId) -> u64 {
        endpoint.0 % Tried::BITS as u64
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Rule that selects the endpoint of a call (`--endpoint-policy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
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

impl Policy {
    /// All policies with their names.
    pub const ALL: [(&'static str, Policy); 5] = [
        ("random", Policy::Random),
        ("round-robin", Policy::RoundRobin),
        ("weighted", Policy::Weighted),
        ("least-loaded", Policy::LeastLoaded),
        ("leader", Policy::Leader),
    ];

    /// Returns whether the policy selects an endpoint for each call, so that endpoints can be
    /// compared. Otherwise one endpoint serves all calls.
    pub fn spreads(self) -> bool {
        match self {
            Policy::Random | Policy::Leader => false,
            Policy::RoundRobin | Policy::Weighted | Policy::LeastLoaded => true,
        }
    }

    /// Returns the name, as in the flag.
    pub fn name(self) -> &'static str {
        let named = Policy::ALL.iter().find(|(_, policy)| *policy == self);
        named.map_or("", |(name, _)| name)
    }
}
