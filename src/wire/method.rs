//! Every method etcd serves: its kind of stream, and whether it may be sent again.
//!
//! A method that is not here is forwarded all the same (P1), as one that may change something.
//! Left to others: whether a failed call *is* sent again (E2 also asks how far it got), and what is
//! done with the methods that are intercepted.

use Access::{Read, Write};
use Kind::{BidiStream, ServerStream, Unary};

/// Which sides of a call are streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One request, one answer.
    Unary,
    /// One request, many answers.
    ServerStream,
    /// Many requests, one answer. etcd has none today.
    ClientStream,
    /// Many requests, many answers.
    BidiStream,
}

/// What sending a call twice would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing: may be sent to etcd again, to another endpoint too, as long as no answer
    /// has been passed on (E2). Only a unary read is ever sent to two endpoints at once (E5): a
    /// stream may be silent by nature.
    Read,
    /// May change something: sent again only when provably never processed (E2).
    Write,
}

/// One method.
#[derive(Debug)]
pub struct Method {
    /// `/service/name`, as `:path` carries it.
    pub path: &'static str,
    /// The service with its package, as `etcdserverpb.KV`.
    pub service: &'static str,
    /// The name within the service, as `Range`.
    pub name: &'static str,
    /// Which sides are streams.
    pub kind: Kind,
    /// Whether it may be sent again.
    pub access: Access,
    /// Its place in [`all`], for tables of one entry per method.
    pub index: usize,
}

/// Every method, each at its own [`Method::index`].
pub fn all() -> &'static [Method] {
    &METHODS
}

/// The method of a request path, `None` for one that is not known. One comparison of texts, whatever
/// the method.
pub fn lookup(path: &str) -> Option<&'static Method> {
    let method = &METHODS[usize::from(SLOTS[slot(path.as_bytes())?])];
    (method.path == path).then_some(method)
}

/// A path's place in [`SLOTS`], by its end and its length; `None` for one too short to be known.
const fn slot(path: &[u8]) -> Option<usize> {
    match path.last_chunk() {
        Some(end) => {
            let end = u64::from_le_bytes(*end).wrapping_add(path.len() as u64);
            // The upper 8 bits: below the number of slots.
            Some((end.wrapping_mul(SPREAD) >> 56) as usize)
        }
        None => None,
    }
}

/// Found by trying: gives each method a slot of its own. Where a new method makes two of them meet,
/// [`slots`] does not compile, and another odd number is to be tried.
const SPREAD: u64 = 0x764c_95f1_1365_c161;

/// A method's index by the slot of its path. Slots of none have some method's: its path is compared.
static SLOTS: [u8; 256] = slots(&METHODS);

macro_rules! method {
    ($service:literal, $name:literal, $kind:expr, $access:expr) => {
        Method {
            path: concat!("/", $service, "/", $name),
            service: $service,
            name: $name,
            kind: $kind,
            access: $access,
            index: 0,
        }
    };
}

/// The busiest services come first. Where the path alone does not tell whether a call changes
/// something, it counts as a write, with the reason beside it.
#[rustfmt::skip]
static METHODS: [Method; 52] = numbered([
    method!("etcdserverpb.KV", "Range", Unary, Read),
    method!("etcdserverpb.KV", "Put", Unary, Write),
    // A transaction of reads only looks the same from outside.
    method!("etcdserverpb.KV", "Txn", Unary, Write),
    method!("etcdserverpb.KV", "DeleteRange", Unary, Write),
    method!("etcdserverpb.KV", "RangeStream", ServerStream, Read),
    // A second one at the same revision fails as already compacted.
    method!("etcdserverpb.KV", "Compact", Unary, Write),

    // Renews: sent again by the rules of the lease hub only (L1, L3).
    method!("etcdserverpb.Lease", "LeaseKeepAlive", BidiStream, Write),
    method!("etcdserverpb.Lease", "LeaseGrant", Unary, Write),
    method!("etcdserverpb.Lease", "LeaseRevoke", Unary, Write),
    method!("etcdserverpb.Lease", "LeaseTimeToLive", Unary, Read),
    method!("etcdserverpb.Lease", "LeaseLeases", Unary, Read),

    method!("etcdserverpb.Watch", "Watch", BidiStream, Read),

    method!("etcdserverpb.Maintenance", "Status", Unary, Read),
    // Its GET action reads, ACTIVATE and DEACTIVATE do not; only the body tells them apart.
    method!("etcdserverpb.Maintenance", "Alarm", Unary, Write),
    // Stops one member's work: a second send would stop another's as well.
    method!("etcdserverpb.Maintenance", "Defragment", Unary, Write),
    method!("etcdserverpb.Maintenance", "Hash", Unary, Read),
    method!("etcdserverpb.Maintenance", "HashKV", Unary, Read),
    method!("etcdserverpb.Maintenance", "Snapshot", ServerStream, Read),
    method!("etcdserverpb.Maintenance", "MoveLeader", Unary, Write),
    // Its VALIDATE action reads; only the body tells.
    method!("etcdserverpb.Maintenance", "Downgrade", Unary, Write),

    method!("etcdserverpb.Cluster", "MemberList", Unary, Read),
    method!("etcdserverpb.Cluster", "MemberAdd", Unary, Write),
    method!("etcdserverpb.Cluster", "MemberRemove", Unary, Write),
    method!("etcdserverpb.Cluster", "MemberUpdate", Unary, Write),
    method!("etcdserverpb.Cluster", "MemberPromote", Unary, Write),

    // Goes through consensus and leaves a token behind in every member.
    method!("etcdserverpb.Auth", "Authenticate", Unary, Write),
    method!("etcdserverpb.Auth", "AuthStatus", Unary, Read),
    method!("etcdserverpb.Auth", "AuthEnable", Unary, Write),
    method!("etcdserverpb.Auth", "AuthDisable", Unary, Write),
    method!("etcdserverpb.Auth", "UserAdd", Unary, Write),
    method!("etcdserverpb.Auth", "UserGet", Unary, Read),
    method!("etcdserverpb.Auth", "UserList", Unary, Read),
    method!("etcdserverpb.Auth", "UserDelete", Unary, Write),
    method!("etcdserverpb.Auth", "UserChangePassword", Unary, Write),
    method!("etcdserverpb.Auth", "UserGrantRole", Unary, Write),
    method!("etcdserverpb.Auth", "UserRevokeRole", Unary, Write),
    method!("etcdserverpb.Auth", "RoleAdd", Unary, Write),
    method!("etcdserverpb.Auth", "RoleGet", Unary, Read),
    method!("etcdserverpb.Auth", "RoleList", Unary, Read),
    method!("etcdserverpb.Auth", "RoleDelete", Unary, Write),
    method!("etcdserverpb.Auth", "RoleGrantPermission", Unary, Write),
    method!("etcdserverpb.Auth", "RoleRevokePermission", Unary, Write),

    method!("v3lockpb.Lock", "Lock", Unary, Write),
    method!("v3lockpb.Lock", "Unlock", Unary, Write),

    method!("v3electionpb.Election", "Campaign", Unary, Write),
    method!("v3electionpb.Election", "Proclaim", Unary, Write),
    method!("v3electionpb.Election", "Leader", Unary, Read),
    method!("v3electionpb.Election", "Observe", ServerStream, Read),
    method!("v3electionpb.Election", "Resign", Unary, Write),

    method!("grpc.health.v1.Health", "Check", Unary, Read),
    method!("grpc.health.v1.Health", "List", Unary, Read),
    method!("grpc.health.v1.Health", "Watch", ServerStream, Read),
]);

/// Gives each method its place as its index.
const fn numbered<const N: usize>(mut methods: [Method; N]) -> [Method; N] {
    let mut i = 0;
    while i < N {
        methods[i].index = i;
        i += 1;
    }
    methods
}

const fn slots(methods: &[Method]) -> [u8; 256] {
    let mut slots = [u8::MAX; 256];
    let mut i = 0;
    while i < methods.len() {
        let Some(slot) = slot(methods[i].path.as_bytes()) else {
            panic!("a path is shorter than the end that is looked at");
        };
        assert!(slots[slot] == u8::MAX, "two methods have the same slot");
        slots[slot] = i as u8;
        i += 1;
    }
    assert!(i < u8::MAX as usize, "an index does not fit a slot");
    let mut slot = 0;
    while slot < slots.len() {
        if slots[slot] == u8::MAX {
            slots[slot] = 0;
        }
        slot += 1;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_at_its_index() {
        for (i, method) in all().iter().enumerate() {
            assert_eq!(method.index, i);
            assert_eq!(method.path, format!("/{}/{}", method.service, method.name));
            assert_eq!(lookup(method.path).map(|found| found.index), Some(i));
        }
    }

    #[test]
    fn nothing_else_is_found() {
        for path in [
            "",
            "/",
            "//",
            "/etcdserverpb.KV",
            "/etcdserverpb.KV/",
            "etcdserverpb.KV/Range",
            "/etcdserverpb.KV/range",
            "/etcdserverpb.KV/Range/",
            "/etcdserverpb.KV/Range?x",
            "/etcdserverpb.Lease/Range",
            "/invented.Service/Call",
            // The end and the length of one that is known.
            "/etcdserverpb.kv/Range",
            "KV/Range",
        ] {
            assert!(lookup(path).is_none(), "{path}");
        }
    }

    #[test]
    fn reads_are_exactly_these() {
        let mut reads: Vec<&str> = Vec::new();
        reads.extend(all().iter().filter(|m| m.access == Read).map(|m| m.name));
        reads.sort_unstable();
        let mut want = [
            "Range",
            "RangeStream",
            "Watch",
            "LeaseTimeToLive",
            "LeaseLeases",
            "MemberList",
            "Status",
            "Hash",
            "HashKV",
            "Snapshot",
            "AuthStatus",
            "UserGet",
            "UserList",
            "RoleGet",
            "RoleList",
            "Leader",
            "Observe",
            "Check",
            "List",
            "Watch",
        ];
        want.sort_unstable();
        assert_eq!(reads, want);
    }

    #[test]
    fn streams_are_exactly_these() {
        let streams: Vec<(&str, Kind)> = all()
            .iter()
            .filter(|m| m.kind != Unary)
            .map(|m| (m.path, m.kind))
            .collect();
        let want = [
            ("/etcdserverpb.KV/RangeStream", ServerStream),
            ("/etcdserverpb.Lease/LeaseKeepAlive", BidiStream),
            ("/etcdserverpb.Watch/Watch", BidiStream),
            ("/etcdserverpb.Maintenance/Snapshot", ServerStream),
            ("/v3electionpb.Election/Observe", ServerStream),
            ("/grpc.health.v1.Health/Watch", ServerStream),
        ];
        assert_eq!(streams, want);
    }
}
