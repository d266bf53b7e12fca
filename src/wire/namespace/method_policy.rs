//! Which methods may pass under a namespace (N1). What shows or changes the store outside of it is
//! refused, unless the operator opens it, and so is what nobody has looked at.

use crate::wire::method::Method;
use crate::wire::proto::{self, WireType};

/// What is done with a method's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceAccess {
    /// They pass, their keys translated where they have any.
    Open,
    /// Only those that ask pass, see [`only_asks`].
    Asking,
    /// They pass when the lease they end has no key outside.
    Lease,
    /// They are refused.
    Closed,
}

/// What is done with a method unless the operator says otherwise; `None` is one that is not known.
pub fn passage(method: Option<&Method>) -> NamespaceAccess {
    let Some(method) = method else {
        return NamespaceAccess::Closed;
    };
    match (method.service, method.name) {
        ("etcdserverpb.KV", "Range" | "RangeStream" | "Put" | "DeleteRange" | "Txn") => {
            NamespaceAccess::Open
        }
        ("etcdserverpb.Watch", "Watch") => NamespaceAccess::Open,
        ("etcdserverpb.Lease", "LeaseRevoke") => NamespaceAccess::Lease,
        // Leases belong to no prefix. Which there are is a list of numbers.
        (
            "etcdserverpb.Lease",
            "LeaseGrant" | "LeaseKeepAlive" | "LeaseTimeToLive" | "LeaseLeases",
        ) => NamespaceAccess::Open,
        ("v3lockpb.Lock", "Lock" | "Unlock") => NamespaceAccess::Open,
        ("v3electionpb.Election", "Campaign" | "Proclaim" | "Leader" | "Observe" | "Resign") => {
            NamespaceAccess::Open
        }
        ("etcdserverpb.Maintenance", "Status") => NamespaceAccess::Open,
        ("etcdserverpb.Maintenance", "Alarm") => NamespaceAccess::Asking,
        ("etcdserverpb.Cluster", "MemberList") => NamespaceAccess::Open,
        // Of users this shows names and the names of their roles, not what those may read.
        ("etcdserverpb.Auth", "Authenticate" | "AuthStatus" | "UserGet" | "UserList") => {
            NamespaceAccess::Open
        }
        ("grpc.health.v1.Health", "Check" | "List" | "Watch") => NamespaceAccess::Open,
        _ => NamespaceAccess::Closed,
    }
}

/// Whether a request of a method of [`NamespaceAccess::Asking`] changes nothing: AlarmRequest { action = 1 } is 0,
/// GET, however it is read. The message is without its gRPC head.
pub fn only_asks(message: &[u8]) -> bool {
    proto::fields(message).all(|field| match field {
        Ok(field) if field.number == 1 => {
            field.wire_type == WireType::Varint && field.varint() == Some(0)
        }
        Ok(_) => true,
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::method;
    use crate::wire::namespace::forms;

    fn of(passage_wanted: NamespaceAccess) -> Vec<&'static str> {
        let all = method::all().iter();
        let these = all.filter(|method| passage(Some(method)) == passage_wanted);
        these.map(|method| method.name).collect()
    }

    #[test]
    fn these_are_refused() {
        let closed = [
            "Compact",
            "Defragment",
            "Hash",
            "HashKV",
            "Snapshot",
            "MoveLeader",
            "Downgrade",
            "MemberAdd",
            "MemberRemove",
            "MemberUpdate",
            "MemberPromote",
            "AuthEnable",
            "AuthDisable",
            "UserAdd",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ];
        assert_eq!(of(NamespaceAccess::Closed), closed);
        assert_eq!(of(NamespaceAccess::Asking), ["Alarm"]);
        assert_eq!(of(NamespaceAccess::Lease), ["LeaseRevoke"]);
        assert_eq!(passage(None), NamespaceAccess::Closed);
    }

    #[test]
    fn all_that_has_keys_is_open() {
        for method in method::all() {
            if forms(method) != (None, None) {
                assert_eq!(
                    passage(Some(method)),
                    NamespaceAccess::Open,
                    "{}",
                    method.path
                );
            }
        }
    }

    #[test]
    fn an_alarm_is_asked_for_however_it_is_written() {
        for asks in [&b""[..], b"\x08\x00", b"\x10\x07\x18\x01", b"\x08\x80\x00"] {
            assert!(only_asks(asks), "{asks:?}");
        }
        for acts in [
            &b"\x08\x01"[..],
            b"\x08\x02",
            b"\x08\x01\x08\x00",
            b"\x08\x00\x08\x01",
            b"\x0a\x01\x01",
            b"\x08",
        ] {
            assert!(!only_asks(acts), "{acts:?}");
        }
        // An enum is 32 bits of it to some.
        assert!(!only_asks(b"\x08\x80\x80\x80\x80\x10"));
    }
}
