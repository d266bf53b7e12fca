//! Table of every etcd method: which sides stream, and whether a call may be sent again.
//!
//! The proxy also forwards methods that are not in the table, as calls that may change something
//! (P1).
//!
//! Not here: the decision to retry a failed call, which also depends on its progress (E2), and the
//! treatment of intercepted methods.

use Access::{Read, Write};
use MethodKind::{BidiStream, ServerStream, Unary};

/// Which sides of a call are streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many requests, one response. No etcd method has this type today.
    ClientStream,
    /// Many requests, many responses.
    BidiStream,
}

/// Effect of a call on the store, which decides whether a retry is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing. A read may be sent again, also to another endpoint, until a response has
    /// been forwarded to the client (E2). Only a unary read is ever sent to two endpoints at once
    /// (E5), since a stream may legitimately be silent.
    Read,
    /// May change something: sent again only if it provably was not processed (E2).
    Write,
}

/// A method of the table.
#[derive(Debug)]
pub struct Method {
    /// Request path `/service/name`, the value of `:path`.
    pub path: &'static str,
    /// Service name with its package, such as `etcdserverpb.KV`.
    pub service: &'static str,
    /// Method name within the service, such as `Range`.
    pub name: &'static str,
    /// Which sides are streams.
    pub kind: MethodKind,
    /// Whether a call may be sent again.
    pub access: Access,
    /// Position in [`all`], for tables with one entry per method.
    pub index: usize,
}

/// Returns every method, each at the position [`Method::index`].
pub fn all() -> &'static [Method] {
    &METHODS
}

/// Returns the method of a request path, or `None` for an unknown path. Costs one hash and one
/// string comparison.
pub fn lookup(path: &str) -> Option<&'static Method> {
    let method = &METHODS[usize::from(SLOTS[slot(path.as_bytes())?])];
    (method.path == path).then_some(method)
}

/// Returns the hash slot of a path, from its last bytes and its length. Returns `None` if the path
/// is shorter than every known path.
const fn slot(path: &[u8]) -> Option<usize> {
    match path.last_chunk() {
        Some(end) => {
            let end = u64::from_le_bytes(*end).wrapping_add(path.len() as u64);
            // The upper 8 bits are less than the number of slots.
            Some((end.wrapping_mul(HASH_MULTIPLIER) >> 56) as usize)
        }
        None => None,
    }
}

/// Hash multiplier, found by trial: each method has a slot of its own. If a new method collides,
/// [`slots`] does not compile. Then choose another odd number.
const HASH_MULTIPLIER: u64 = 0x764c_95f1_1365_c161;

/// Maps the hash slot of a path to a method's index. Unused slots contain index 0; the caller
/// compares the path.
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

/// All methods, the most frequently called services first. A method that the path alone does not
/// classify counts as a write; a comment gives the reason.
#[rustfmt::skip]
static METHODS: [Method; 52] = with_indexes([
    method!("etcdserverpb.KV", "Range", Unary, Read),
    method!("etcdserverpb.KV", "Put", Unary, Write),
    // The path does not show whether a transaction only reads.
    method!("etcdserverpb.KV", "Txn", Unary, Write),
    method!("etcdserverpb.KV", "DeleteRange", Unary, Write),
    method!("etcdserverpb.KV", "RangeStream", ServerStream, Read),
    // A second call at the same revision fails with "already compacted".
    method!("etcdserverpb.KV", "Compact", Unary, Write),

    // Renews a lease: sent again only by the rules of the lease hub (L1, L3).
    method!("etcdserverpb.Lease", "LeaseKeepAlive", BidiStream, Write),
    method!("etcdserverpb.Lease", "LeaseGrant", Unary, Write),
    method!("etcdserverpb.Lease", "LeaseRevoke", Unary, Write),
    method!("etcdserverpb.Lease", "LeaseTimeToLive", Unary, Read),
    method!("etcdserverpb.Lease", "LeaseLeases", Unary, Read),

    method!("etcdserverpb.Watch", "Watch", BidiStream, Read),

    method!("etcdserverpb.Maintenance", "Status", Unary, Read),
    // Action GET reads, ACTIVATE and DEACTIVATE write. Only the body contains the action.
    method!("etcdserverpb.Maintenance", "Alarm", Unary, Write),
    // Blocks one member: a second call would block another member too.
    method!("etcdserverpb.Maintenance", "Defragment", Unary, Write),
    method!("etcdserverpb.Maintenance", "Hash", Unary, Read),
    method!("etcdserverpb.Maintenance", "HashKV", Unary, Read),
    method!("etcdserverpb.Maintenance", "Snapshot", ServerStream, Read),
    method!("etcdserverpb.Maintenance", "MoveLeader", Unary, Write),
    // Action VALIDATE reads. Only the body contains the action.
    method!("etcdserverpb.Maintenance", "Downgrade", Unary, Write),

    method!("etcdserverpb.Cluster", "MemberList", Unary, Read),
    method!("etcdserverpb.Cluster", "MemberAdd", Unary, Write),
    method!("etcdserverpb.Cluster", "MemberRemove", Unary, Write),
    method!("etcdserverpb.Cluster", "MemberUpdate", Unary, Write),
    method!("etcdserverpb.Cluster", "MemberPromote", Unary, Write),

    // Goes through consensus and creates a token in every member.
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

/// Sets the index of each method to its position.
const fn with_indexes<const N: usize>(mut methods: [Method; N]) -> [Method; N] {
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
            panic!("a path is shorter than the hashed suffix");
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
    fn finds_every_path_at_its_index() {
        for (i, method) in all().iter().enumerate() {
            assert_eq!(method.index, i);
            assert_eq!(method.path, format!("/{}/{}", method.service, method.name));
            assert_eq!(lookup(method.path).map(|found| found.index), Some(i));
        }
    }

    #[test]
    fn finds_no_other_path() {
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
            // Same end and length as a known path.
            "/etcdserverpb.kv/Range",
            "KV/Range",
        ] {
            assert!(lookup(path).is_none(), "{path}");
        }
    }

    #[test]
    fn complete_list_of_reads() {
        let mut reads: Vec<&str> = Vec::new();
        reads.extend(all().iter().filter(|m| m.access == Read).map(|m| m.name));
        reads.sort_unstable();
        let mut expected = [
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
        expected.sort_unstable();
        assert_eq!(reads, expected);
    }

    #[test]
    fn complete_list_of_streams() {
        let streams: Vec<(&str, MethodKind)> = all()
            .iter()
            .filter(|m| m.kind != Unary)
            .map(|m| (m.path, m.kind))
            .collect();
        let expected = [
            ("/etcdserverpb.KV/RangeStream", ServerStream),
            ("/etcdserverpb.Lease/LeaseKeepAlive", BidiStream),
            ("/etcdserverpb.Watch/Watch", BidiStream),
            ("/etcdserverpb.Maintenance/Snapshot", ServerStream),
            ("/v3electionpb.Election/Observe", ServerStream),
            ("/grpc.health.v1.Health/Watch", ServerStream),
        ];
        assert_eq!(streams, expected);
    }
}
