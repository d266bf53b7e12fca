//! What a call may have written, read off its method and its request (R3). In doubt it is more.

use bytes::Bytes;

use crate::wire::method::{Access, Method};
use crate::wire::proto::{self, ProtoError, WireType};
use crate::wire::range::KeyRange;

/// Ranges that are told apart in one request; one with more counts as a write to all keys.
const MOST_RANGES: usize = 256;

/// How deep transactions nest in each other that are looked into; etcd itself stops at far less.
const MOST_DEEP: usize = 32;

/// What a call touches if it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// No key.
    Nothing,
    /// Keys in these ranges. Not empty.
    Ranges(Vec<KeyRange>),
    /// Any key.
    AllKeys,
    /// More than keys: who may read what, what is history. Nothing that was answered before counts.
    Everything,
}

/// What has to be looked at to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteSet {
    /// Nothing: no key is touched.
    Nothing,
    /// The request, with [`ranges`].
    Request,
    /// Nothing: any key may be touched.
    AllKeys,
    /// Nothing: see [`Touched::Everything`].
    Everything,
}

/// By the method; `None` is one that is not known.
pub fn writes(method: Option<&Method>) -> WriteSet {
    let Some(method) = method else {
        return WriteSet::Everything;
    };
    if method.access == Access::Read {
        return WriteSet::Nothing;
    }
    match (method.service, method.name) {
        ("etcdserverpb.KV", "Put" | "DeleteRange" | "Txn") => WriteSet::Request,
        // Their answers do not say which keys go.
        ("etcdserverpb.Lease", "LeaseRevoke") => WriteSet::AllKeys,
        ("v3lockpb.Lock" | "v3electionpb.Election", _) => WriteSet::AllKeys,
        ("etcdserverpb.Lease", _) | ("etcdserverpb.Auth", "Authenticate") => WriteSet::Nothing,
        ("etcdserverpb.Maintenance", _) => WriteSet::Nothing,
        // Compaction ends what an old revision showed; users, roles and members decide who is shown
        // what, and by whom.
        _ => WriteSet::Everything,
    }
}

/// The ranges that a request of [`WriteSet::Request`] may write: of a transaction those of both
/// branches, at any depth. `request` is whole and without its frame; `None` when it is not to be had.
pub fn ranges(method: &Method, request: Option<&[u8]>) -> Touched {
    let Some(request) = request else {
        return Touched::AllKeys;
    };
    let mut found = Vec::new();
    let read = match method.name {
        "Txn" => txn(request, MOST_DEEP, &mut found),
        // A put has no range's end: what stands there is its value.
        "Put" => keys(request, false, &mut found),
        _ => keys(request, true, &mut found),
    };
    match read {
        Err(_) => Touched::AllKeys,
        Ok(()) if found.len() > MOST_RANGES => Touched::AllKeys,
        Ok(()) if found.is_empty() => Touched::Nothing,
        Ok(()) => Touched::Ranges(found),
    }
}

/// A request that etcd may read otherwise than this does, or not at all.
struct InDoubt;

impl From<ProtoError> for InDoubt {
    fn from(_: ProtoError) -> InDoubt {
        InDoubt
    }
}

/// TxnRequest { success = 2, failure = 3 }, each RequestOp { put = 2, delete_range = 3, txn = 4 }.
fn txn(request: &[u8], deep: usize, found: &mut Vec<KeyRange>) -> Result<(), InDoubt> {
    let deeper = deep.checked_sub(1).ok_or(InDoubt)?;
    for field in proto::fields(request) {
        let field = field?;
        if !matches!(field.number, 2 | 3) || field.wire_type != WireType::Len {
            continue;
        }
        for (n, op) in proto::fields(field.value).enumerate() {
            let op = op?;
            // Of several, etcd up to 3.6 does the last; 3.7 makes one of those that are of a kind, which
            // may reach further than any of them.
            if n > 0 {
                return Err(InDoubt);
            }
            if found.len() > MOST_RANGES {
                return Ok(());
            }
            match (op.number, op.wire_type) {
                (2, WireType::Len) => keys(op.value, false, found)?,
                (3, WireType::Len) => keys(op.value, true, found)?,
                (4, WireType::Len) => txn(op.value, deeper, found)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// PutRequest { key = 1 } and DeleteRangeRequest { key = 1, range_end = 2 }.
fn keys(request: &[u8], has_end: bool, found: &mut Vec<KeyRange>) -> Result<(), InDoubt> {
    let (mut key, mut end) = (&[][..], &[][..]);
    for field in proto::fields(request) {
        let field = field?;
        match (field.number, field.wire_type) {
            (1, WireType::Len) => key = field.value,
            // To etcd up to 3.6 this is all from the key on, to 3.7 one key.
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

    fn touched(path: &str, request: &[u8]) -> Touched {
        ranges(method::lookup(path).unwrap(), Some(request))
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
    fn a_put_and_a_delete_are_their_keys() {
        let put = PutRequest {
            key: "k".into(),
            value: "a value that is no key".into(),
            ..PutRequest::default()
        };
        let one = Touched::Ranges(vec![range("k", "")]);
        assert_eq!(touched("/etcdserverpb.KV/Put", &put.encode_to_vec()), one);
        let delete = DeleteRangeRequest {
            key: "a".into(),
            range_end: "\0".into(),
            prev_kv: false,
        };
        let open = touched("/etcdserverpb.KV/DeleteRange", &delete.encode_to_vec());
        assert_eq!(open, Touched::Ranges(vec![range("a", "\0")]));
    }

    #[test]
    fn an_end_that_is_there_and_empty_may_mean_all_that_follows() {
        let all = Touched::Ranges(vec![range("k", "\0")]);
        assert_eq!(
            touched("/etcdserverpb.KV/DeleteRange", b"\x0a\x01k\x12\x00"),
            all
        );
    }

    #[test]
    fn a_transaction_is_all_it_may_write_at_any_depth() {
        let read = RequestOp {
            request: Some(Op::RequestRange(RangeRequest::default())),
        };
        let inner = nested(vec![put("c")], vec![delete("d", "e"), read.clone()]);
        let outer = txn(vec![put("a"), nested(vec![inner], vec![put("b")])]);
        let Touched::Ranges(mut found) = touched(TXN, &outer) else {
            panic!("it writes some");
        };
        found.sort();
        let all = [
            range("a", ""),
            range("b", ""),
            range("c", ""),
            range("d", "e"),
        ];
        assert_eq!(found, all);
        assert_eq!(touched(TXN, &txn(vec![read])), Touched::Nothing);
    }

    #[test]
    fn what_is_not_understood_is_everything_it_could_be() {
        let put_method = method::lookup("/etcdserverpb.KV/Put").unwrap();
        assert_eq!(ranges(put_method, None), Touched::AllKeys);
        assert_eq!(touched(TXN, b"\x12\xff"), Touched::AllKeys);
        let deep = (0..MOST_DEEP + 1).fold(put("a"), |op, _| nested(vec![op], vec![]));
        assert_eq!(touched(TXN, &txn(vec![deep])), Touched::AllKeys);
        let many = vec![put("a"); MOST_RANGES + 1];
        assert_eq!(touched(TXN, &txn(many)), Touched::AllKeys);
        // Two deletions in one operation: etcd 3.7 makes one of them, from `a` on.
        let mut both = delete("m", "\0").encode_to_vec();
        both.extend(delete("a", "").encode_to_vec());
        let mut request = Vec::new();
        proto::put_len_head(&mut request, 2, both.len());
        request.extend(both);
        assert_eq!(touched(TXN, &request), Touched::AllKeys);
    }

    #[test]
    fn every_method_has_its_part() {
        let mut of: [Vec<&str>; 4] = Default::default();
        for method in method::all() {
            of[writes(Some(method)) as usize].push(method.name);
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
        assert_eq!(writes(None), WriteSet::Everything);
    }
}
