//! What the parts of the picker, and those who ask it, speak of: endpoints by their ids, those that a
//! call has tried, and the policy.

use crate::limits;

/// One endpoint for as long as it is in the list: an id is never given twice, so that what is still
/// said of an endpoint that went touches none that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub(super) u64);

impl EndpointId {
    /// A place for tables of [`limits::MAX_ENDPOINTS`]: no two endpoints of a list share one.
    pub fn place(self) -> usize {
        // Below MAX_ENDPOINTS.
        (self.0 % limits::MAX_ENDPOINTS as u64) as usize
    }

    /// As a number, for an atomic; never `u64::MAX`.
    pub fn number(self) -> u64 {
        self.0
    }

    /// From what [`EndpointId::number`] gave.
    pub fn from_number(number: u64) -> EndpointId {
        EndpointId(number)
    }
}

/// Endpoints a call does not want again: those it has tried. Those of lists longer than 64 share
/// bits, which can only make a call overlook an endpoint, never choose a wrong one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    /// So many endpoints can be told apart.
    pub(super) const BITS: usize = u64::BITS as usize;

    /// Adds an endpoint.
    pub fn add(&mut self, endpoint: EndpointId) {
        self.0 |= 1 << Tried::bit(endpoint);
    }

    /// Whether the endpoint was added.
    pub fn contains(self, endpoint: EndpointId) -> bool {
        self.0 & (1 << Tried::bit(endpoint)) != 0
    }

    /// Which bit is an endpoint's.
    pub(super) fn bit(endpoint: EndpointId) -> u64 {
        endpoint.0 % Tried::BITS as u64
    }

    /// Whether nothing was added.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which endpoint a call goes to (`--endpoint-policy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// One, picked at random, until it fails (E1).
    #[default]
    Random,
    /// Each in its turn.
    RoundRobin,
    /// Each in its turn, by weights.
    Weighted,
    /// The one with the fewest calls open.
    LeastLoaded,
    /// The one whose member leads; where that is not known, one until it fails.
    Leader,
}

impl Policy {
    /// Every policy by its name.
    pub const ALL: [(&'static str, Policy); 5] = [
        ("random", Policy::Random),
        ("round-robin", Policy::RoundRobin),
        ("weighted", Policy::Weighted),
        ("least-loaded", Policy::LeastLoaded),
        ("leader", Policy::Leader),
    ];

    /// Whether it chooses for each call, so that endpoints can be compared; else one serves all.
    pub fn spreads(self) -> bool {
        match self {
            Policy::Random | Policy::Leader => false,
            Policy::RoundRobin | Policy::Weighted | Policy::LeastLoaded => true,
        }
    }

    /// As it is typed.
    pub fn name(self) -> &'static str {
        let named = Policy::ALL.iter().find(|(_, policy)| *policy == self);
        named.map_or("", |(name, _)| name)
    }
}
