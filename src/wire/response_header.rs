//! The `ResponseHeader` at the start of nearly every etcd response, read and changed without
//! decoding the rest of the message.

use bytes::Bytes;

use crate::wire::frame::{self, HEAD_LEN};
use crate::wire::method::Method;
use crate::wire::proto::{
    self, MAX_VARINT_LEN, WireType, put_len_head, put_varint_field, read_varint,
};

/// The values of a `ResponseHeader`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// ID of the cluster.
    pub cluster_id: u64,
    /// ID of the member that responded.
    pub member_id: u64,
    /// Revision of that member's store, which does not prove delivery of all earlier events (W3).
    pub revision: i64,
    /// Raft term of that member.
    pub raft_term: u64,
}

/// Tag of the header field in every response that has one.
const HEADER: u64 = 1 << 3 | WireType::Len as u64;

/// Field number of the revision in a header.
const REVISION: u32 = 3;

/// Returns the header of the message at the start of `bytes`, which begin with the gRPC head.
///
/// Returns `None` if responses of the method have no header, or if `bytes` contain only a part of
/// it. The header is the first field and far smaller than a frame, so in practice it is complete.
pub fn peek(method: &Method, bytes: &[u8]) -> Option<Header> {
    let (0, message) = (*bytes.first()?, bytes.get(HEAD_LEN..)?) else {
        return None;
    };
    let first = first_field(message)?;
    // RangeStreamResponse { range_response: RangeResponse { header } }. The inner message may
    // extend past these bytes.
    let header = match method.name {
        "RangeStream" => {
            let (_, at) = read_varint(first).ok()?;
            first_field(&first[at..])?
        }
        _ => first,
    };
    parse(complete(header)?)
}

/// Parses an encoded `ResponseHeader`. Returns `None` if it is malformed.
pub fn parse(encoded: &[u8]) -> Option<Header> {
    let mut header = Header::default();
    for field in proto::fields(encoded) {
        let field = field.ok()?;
        match (field.number, field.varint()) {
            (1, Some(value)) => header.cluster_id = value,
            (2, Some(value)) => header.member_id = value,
            // protobuf encodes an int64 as the same 64 bits.
            (3, Some(value)) => header.revision = value as i64,
            (4, Some(value)) => header.raft_term = value,
            _ => {}
        }
    }
    Some(header)
}

/// Returns a copy of a framed response with another revision in its header. Returns `None` if the
/// first field of the message is not a complete header.
pub fn with_revision(framed: &[u8], revision: i64) -> Option<Bytes> {
    let message = framed.get(HEAD_LEN..)?;
    let header = complete(first_field(message)?)?;
    let first = proto::fields(message).next()?.ok()?;
    let rest = &message[first.range.end..];
    let mut fields = Vec::with_capacity(header.len() + MAX_VARINT_LEN);
    for field in proto::fields(header) {
        let field = field.ok()?;
        if field.number != REVISION {
            fields.extend_from_slice(&header[field.range]);
        }
    }
    // protobuf encodes an int64 as the same 64 bits.
    put_varint_field(&mut fields, REVISION, revision as u64);
    let mut out = Vec::with_capacity(framed.len() + 2 * MAX_VARINT_LEN);
    out.extend_from_slice(&[0; HEAD_LEN]);
    put_len_head(&mut out, 1, fields.len());
    out.extend_from_slice(&fields);
    out.extend_from_slice(rest);
    let len = u32::try_from(out.len() - HEAD_LEN).ok()?;
    out[..HEAD_LEN].copy_from_slice(&frame::head(false, len));
    Some(out.into())
}

/// Returns the message from the length of field 1 on, if field 1 comes first.
fn first_field(message: &[u8]) -> Option<&[u8]> {
    let (tag, len) = read_varint(message).ok()?;
    (tag == HEADER).then(|| &message[len..])
}

/// Returns the value after a length, if it is complete.
fn complete(field: &[u8]) -> Option<&[u8]> {
    let (len, at) = read_varint(field).ok()?;
    field.get(at..at.checked_add(usize::try_from(len).ok()?)?)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::method;
    use crate::wire::pb::etcdserverpb::{MemberListResponse, RangeResponse, ResponseHeader};
    use crate::wire::pb::mvccpb::KeyValue;

    const ENCODED: ResponseHeader = ResponseHeader {
        cluster_id: u64::MAX,
        member_id: 2,
        revision: 300,
        raft_term: 4,
    };
    const PARSED: Header = Header {
        cluster_id: u64::MAX,
        member_id: 2,
        revision: 300,
        raft_term: 4,
    };

    fn list() -> &'static Method {
        method::lookup("/etcdserverpb.Cluster/MemberList").unwrap()
    }

    #[test]
    fn reads_the_header_of_a_response() {
        let response = MemberListResponse {
            header: Some(ENCODED),
            members: vec![Default::default(); 9],
        };
        let bytes = frame::encode(&response.encode_to_vec());
        assert_eq!(peek(list(), &bytes), Some(PARSED));
        for cut in 0..bytes.len() {
            let got = peek(list(), &bytes[..cut]);
            assert!(got.is_none() || got == Some(PARSED));
        }
        assert_eq!(peek(list(), b"\x01\0\0\0\0"), None);
        assert_eq!(peek(list(), b"\0\0\0\0\x02\x08\x01"), None);
    }

    #[test]
    fn reads_the_nested_header_of_a_range_stream() {
        let header = ENCODED.encode_to_vec();
        let mut range = vec![0x0a, header.len() as u8];
        range.extend(&header);
        // Most of the message is still missing.
        let mut message = vec![0x0a, 0xff, 0x7f];
        message.extend(&range);
        let mut bytes = vec![0, 0, 0, 0x40, 0];
        bytes.extend(&message);
        let stream = method::lookup("/etcdserverpb.KV/RangeStream").unwrap();
        assert_eq!(peek(stream, &bytes), Some(PARSED));
        assert_eq!(peek(list(), &bytes), None);
    }

    #[test]
    fn with_revision_changes_nothing_else() {
        let response = |revision| {
            let kv = KeyValue {
                key: "k".into(),
                value: vec![7; 300].into(),
                mod_revision: 3,
                ..KeyValue::default()
            };
            let header = ResponseHeader {
                revision,
                ..ENCODED
            };
            let response = RangeResponse {
                header: Some(header),
                kvs: vec![kv.clone(), kv],
                more: true,
                count: 2,
            };
            frame::encode_message(&response)
        };
        for revision in [1, 127, 128, i64::MAX] {
            let changed = with_revision(&response(300), revision).unwrap();
            let decoded = RangeResponse::decode(&changed[HEAD_LEN..]).unwrap();
            let expected = RangeResponse::decode(&response(revision)[HEAD_LEN..]).unwrap();
            assert_eq!(decoded, expected);
            assert_eq!(changed.len(), response(revision).len());
        }
        for cut in [0, 4, 9] {
            assert_eq!(with_revision(&response(300)[..cut], 4), None);
        }
    }
}
