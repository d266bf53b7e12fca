//! The methods that a namespace allows (N1). A namespace denies methods that read or change the
//! store outside the prefix, unless the operator allows them, and all unknown methods.

use crate::wire::method::Method;
use crate::wire::proto::{self, WireType};

/// Treatment of a method's calls in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceAccess {
    /// All calls are allowed. Their keys, if any, are translated.
    Allowed,
    /// Only calls that change nothing are allowed, see [`is_alarm_get`].
    ReadOnly,
    /// Calls are allowed if their lease has no key outside the namespace.
    LeaseChecked,
    /// All calls are denied.
    Denied,
}

/// Returns the treatment of a method without a setting of the operator. `None` is an unknown
/// method.
pub fn default_access(method: Option<&Method>) -> NamespaceAccess {
    let Some(method) = method else {
        return NamespaceAccess::Denied;
    };
    match (method.service, method.name) {
        ("etcdserverpb.KV", "Range" | "RangeStream" | "Put" | "DeleteRange" | "Txn") => {
            NamespaceAccess::Allowed
        }
        ("etcdserverpb.Watch", "Watch") => NamespaceAccess::Allowed,
        ("etcdserverpb.Lease", "LeaseRevoke") => NamespaceAccess::LeaseChecked,
        // Leases do not belong to a prefix. LeaseLeases returns only numbers.
        (
            "etcdserverpb.Lease",
            "LeaseGrant" | "LeaseKeepAlive" | "LeaseTimeToLive" | "LeaseLeases",
        ) => NamespaceAccess::Allowed,
        ("v3lockpb.Lock", "Lock" | "Unlock") => NamespaceAccess::Allowed,
        ("v3electionpb.Election", "Campaign" | "Proclaim" | "Leader" | "Observe" | "Resign") => {
            NamespaceAccess::Allowed
        }
        ("etcdserverpb.Maintenance", "Status") => NamespaceAccess::Allowed,
        ("etcdserverpb.Maintenance", "Alarm") => NamespaceAccess::ReadOnly,
        ("etcdserverpb.Cluster", "MemberList") => NamespaceAccess::Allowed,
        // These return the names of users and of their roles, not the ranges that a role may read.
        ("etcdserverpb.Auth", "Authenticate" | "AuthStatus" | "UserGet" | "UserList") => {
            NamespaceAccess::Allowed
        }
        ("grpc.health.v1.Health", "Check" | "List" | "Watch") => NamespaceAccess::Allowed,
        _ => NamespaceAccess::Denied,
    }
}

/// Returns whether an Alarm request changes nothing: every occurrence of AlarmRequest.action (field
/// 1) is 0 (GET), so every parser reads GET. `message` has no gRPC head.
pub fn is_alarm_get(message: &[u8]) -> bool {
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
    use crate::wire::namespace::message_types;

    fn methods_with(access: NamespaceAccess) -> Vec<&'static str> {
        let all = method::all().iter();
        let matching = all.filter(|method| default_access(Some(method)) == access);
        matching.map(|method| method.name).collect()
    }

    #[test]
    fn complete_list_of_denied_methods() {
        let denied = [
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
        assert_eq!(methods_with(NamespaceAccess::Denied), denied);
        assert_eq!(methods_with(NamespaceAccess::ReadOnly), ["Alarm"]);
        assert_eq!(methods_with(NamespaceAccess::LeaseChecked), ["LeaseRevoke"]);
        assert_eq!(default_access(None), NamespaceAccess::Denied);
    }

    #[test]
    fn all_methods_with_keys_are_allowed() {
        for method in method::all() {
            if message_types(method) != (None, None) {
                assert_eq!(
                    default_access(Some(method)),
                    NamespaceAccess::Allowed,
                    "{}",
                    method.path
                );
            }
        }
    }

    #[test]
    fn recognizes_alarm_get_in_every_encoding() {
        for get in [&b""[..], b"\x08\x00", b"\x10\x07\x18\x01", b"\x08\x80\x00"] {
            assert!(is_alarm_get(get), "{get:?}");
        }
        for other in [
            &b"\x08\x01"[..],
            b"\x08\x02",
            b"\x08\x01\x08\x00",
            b"\x08\x00\x08\x01",
            b"\x0a\x01\x01",
            b"\x08",
        ] {
            assert!(!is_alarm_get(other), "{other:?}");
        }
        // Some parsers truncate an enum to 32 bits.
        assert!(!is_alarm_get(b"\x08\x80\x80\x80\x80\x10"));
    }
}
