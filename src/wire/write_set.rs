//! Computes which keys a call may have written, from its method and its request (R3).
//!
//! The result may be too large and is never too small: a request that this parser does not fully
//! understand counts as a write to all keys.

use bytes::Bytes;

use crate::wire::method::{Access, Method};
use crate::wire::proto::{self, ProtoError, WireType};
use crate::wire::range::KeyRange;

/// Maximum number of ranges of one request. A request with more counts as a write to all keys.
const MAX_RANGES: usize = 256;

/// Maximum nesting depth of transactions that the parser follows. etcd's own limit is far lower.
const MAX_DEPTH: usize = 32;

/// The keys that a call may have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteSet {
    /// No key.
    Nothing,
    /// The keys in these ranges. Not empty.
    Ranges(Vec<KeyRange>),
    /// Any key.
    AllKeys,
    /// More than keys: permissions, history or membership. Every cached response is invalid.
    Everything,
}

/// Source of the write set of a method's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodWrites {
    /// Always [`WriteSet::Nothing`].
    Nothing,
    /// From the request, with [`request_writes`].
    Request,
    /// Always [`WriteSet::AllKeys`].
    AllKeys,
    /// Always [`WriteSet::Everything`].
    Everything,
}

/// Returns how the write set of a method is determined. `None` is an unknown method; its calls may
/// change everything.
pub fn method_writes(method: Option<&Method>) -> MethodWrites {
    let Some(method) = method else {
        return MethodWrites::Everything;
    };
    if method.access == Access::Read {
        return MethodWrites::Nothing;
    }
    match (method.service, method.name) {
        ("etcdserverpb.KV", "Put" | "DeleteRange" | "Txn") => MethodWrites::Request,
        // Neither request nor response contains the deleted keys.
        ("etcdserverpb.Lease", "LeaseRevoke") => MethodWrites::AllKeys,
        ("v3lockpb.Lock" | "v3electionpb.Election", _) => MethodWrites::AllKeys,
        ("etcdserverpb.Lease", _) | ("etcdserverpb.Auth", "Authenticate") => MethodWrites::Nothing,
        ("etcdserverpb.Maintenance", _) => MethodWrites::Nothing,
        // Compaction removes old revisions. Changes of users, roles and members change which
        // client may read a key, and which member responds.
        _ => MethodWrites::Everything,
    }
}

/// Returns the write set of a [`MethodWrites::Request`] request, for a transaction the union of
/// both branches at any depth. `request` is the whole message without its gRPC head. `None` means
/// that the request is not available.
pub fn request_writes(method: &Method, request: Option<&[u8]>) -> WriteSet {
    let Some(request) = request else {
        return WriteSet::AllKeys;
    };
    let mut found = Vec::new();
    let read = match method.name {
        "Txn" => push_txn(request, MAX_DEPTH, &mut found),
        // PutRequest has no range_end: its field 2 is the value.
        "Put" => push_range(request, false, &mut found),
        _ => push_range(request, true, &mut found),
    };
    match read {
        Err(_) => WriteSet::AllKeys,
        Ok(()) if found.len() > MAX_RANGES => WriteSet::AllKeys,
        Ok(()) if found.is_empty() => WriteSet::Nothing,
        Ok(()) => WriteSet::Ranges(found),
    }
}

/// Error for a request that etcd may read in another way, or reject.
struct Ambiguous;

impl From<ProtoError> for Ambiguous {
    fn from(_: ProtoError) -> Ambiguous {
        Ambiguous
    }
}

/// TxnRequest { success = 2, failure = 3 }, each RequestOp { put = 2, delete_range = 3, txn = 4 }.
fn push_txn(request: &[u8], depth: usize, found: &mut Vec<KeyRange>) -> Result<(), Ambiguous> {
    let inner_depth = depth.checked_sub(1).ok_or(Ambiguous)?;
    for field in proto::fields(request) {
        let field = field?;
        if !matches!(field.number, 2 | 3) || field.wire_type != WireType::Len {
            continue;
        }
        for (n, op) in proto::fields(field.value).enumerate() {
            let op = op?;
            // Of several operations, etcd up to 3.6 executes the last. etcd 3.7 merges those of the
            // same kind into one, which may cover more keys than each of them.
            if n > 0 {
                return Err(Ambiguous);
            }
            if found.len() > MAX_RANGES {
                return Ok(());
            }
            match (op.number, op.wire_type) {
                (2, WireType::Len) => push_range(op.value, false, found)?,
                (3, WireType::Len) => push_range(op.value, true, found)?,
                (4, WireType::Len) => push_txn(op.value, inner_depth, found)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// PutRequest { key = 1 } and DeleteRangeRequest { key = 1, range_end = 2 }.
fn push_range(request: &[u8], has_end: bool, found: &mut Vec<KeyRange>) -> Result<(), Ambiguous> {
    let (mut key, mut end) = (&[][..], &[][..]);
    for field in proto::fields(request) {
        let field = field?;
        match (field.number, field.wire_type) {
            (1, WireType::Len) => key = field.value,
            // etcd up to 3.6 deletes from the key on. etcd 3.7 deletes one key.
            (2, WireType::Len) if has_end && field.value.is_empty() => end = &[0],
            (2, WireType::Len) if has_end => end = field.value,
            _ => {}
        }
    }
    let own = Bytes::copy_from_slice;
    found.push(KeyRange::of(own(key), own(end)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::method;
    use crate::wire::pb::etcdserverpb::request_op::Request as Op;
    use crate::wire::pb::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    };
    use prost::Message as _;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::of(Bytes::from(key), Bytes::from(end))
    }

    fn write_set(path: &str, request: &[u8]) -> WriteSet {
        request_writes(method::lookup(path).unwrap(), Some(request))
    }

    fn put(key: &'static str) -> RequestOp {
        let put = PutRequest {
            key: key.into(),
            value: "v".into(),
            ..PutRequest::default()
        };
        RequestOp {
            request: Some(Op::RequestPut(put)),
        }
    }

    fn delete(key: &'static str, end: &'static str) -> RequestOp {
        let delete = DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: true,
        };
        RequestOp {
            request: Some(Op::RequestDeleteRange(delete)),
        }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let txn = TxnRequest {
            success,
            failure,
            ..TxnRequest::default()
        };
        RequestOp {
            request: Some(Op::RequestTxn(txn)),
        }
    }

    fn txn(ops: Vec<RequestOp>) -> Vec<u8> {
        let txn = TxnRequest {
            success: ops,
            ..TxnRequest::default()
        };
        txn.encode_to_vec()
    }

    const TXN: &str = "/etcdserverpb.KV/Txn";

    #[test]
    fn a_put_and_a_deletion_write_their_range() {
        let put = PutRequest {
            key: "k".into(),
            value: "a value that is no key".into(),
            ..PutRequest::default()
        };
        let one = WriteSet::Ranges(vec![range("k", "")]);
        assert_eq!(write_set("/etcdserverpb.KV/Put", &put.encode_to_vec()), one);
        let delete = DeleteRangeRequest {
            key: "a".into(),
            range_end: "\0".into(),
            prev_kv: false,
        };
        let open = write_set("/etcdserverpb.KV/DeleteRange", &delete.encode_to_vec());
        assert_eq!(open, WriteSet::Ranges(vec![range("a", "\0")]));
    }

    #[test]
    fn an_empty_range_end_field_counts_as_open_ended() {
        let all = WriteSet::Ranges(vec![range("k", "\0")]);
        assert_eq!(
            write_set("/etcdserverpb.KV/DeleteRange", b"\x0a\x01k\x12\x00"),
            all
        );
    }

    #[test]
    fn a_transaction_writes_both_branches_at_any_depth() {
        let read = RequestOp {
            request: Some(Op::RequestRange(RangeRequest::default())),
        };
        let inner = nested(vec![put("c")], vec![delete("d", "e"), read.clone()]);
        let outer = txn(vec![put("a"), nested(vec![inner], vec![put("b")])]);
        let WriteSet::Ranges(mut found) = write_set(TXN, &outer) else {
            panic!("expected ranges");
        };
        found.sort();
        let all = [
            range("a", ""),
            range("b", ""),
            range("c", ""),
            range("d", "e"),
        ];
        assert_eq!(found, all);
        assert_eq!(write_set(TXN, &txn(vec![read])), WriteSet::Nothing);
    }

    #[test]
    fn ambiguous_requests_write_all_keys() {
        let put_method = method::lookup("/etcdserverpb.KV/Put").unwrap();
        assert_eq!(request_writes(put_method, None), WriteSet::AllKeys);
        assert_eq!(write_set(TXN, b"\x12\xff"), WriteSet::AllKeys);
        let depth = (0..MAX_DEPTH + 1).fold(put("a"), |op, _| nested(vec![op], vec![]));
        assert_eq!(write_set(TXN, &txn(vec![depth])), WriteSet::AllKeys);
        let many = vec![put("a"); MAX_RANGES + 1];
        assert_eq!(write_set(TXN, &txn(many)), WriteSet::AllKeys);
        // Two deletions in one operation: etcd 3.7 merges them into one, from `a` on.
        let mut both = delete("m", "\0").encode_to_vec();
        both.extend(delete("a", "").encode_to_vec());
        let mut request = Vec::new();
        proto::put_len_head(&mut request, 2, both.len());
        request.extend(both);
        assert_eq!(write_set(TXN, &request), WriteSet::AllKeys);
    }

    #[test]
    fn every_method_is_classified() {
        let mut of: [Vec<&str>; 4] = Default::default();
        for method in method::all() {
            of[method_writes(Some(method)) as usize].push(method.name);
        }
        let [_, request, all_keys, everything] = of;
        assert_eq!(request, ["Put", "Txn", "DeleteRange"]);
        let mut keys = [
            "LeaseRevoke",
            "Lock",
            "Unlock",
            "Campaign",
            "Proclaim",
            "Resign",
        ];
        keys.sort_unstable();
        let mut found = all_keys;
        found.sort_unstable();
        assert_eq!(found, keys);
        let expected = [
            "Compact",
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
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ];
        assert_eq!(everything, expected);
        assert_eq!(method_writes(None), MethodWrites::Everything);
    }
}
