//! Parser for the parts of a `RangeRequest` that the read cache and read coalescing depend on, on
//! the raw bytes.
//!
//! Two requests with the same bytes are the same read. Requests with different bytes count as
//! different reads even if they mean the same, which only costs one more read. etcd validates
//! requests. A request that this parser does not understand is [`None`] and shares nothing.

use bytes::Bytes;

use crate::wire::frame::HEAD_LEN;
use crate::wire::proto::{self, Field, WireType};
use crate::wire::range::KeyRange;

/// Field numbers of `RangeRequest`.
const KEY: u32 = 1;
const RANGE_END: u32 = 2;
const REVISION: u32 = 4;
const SERIALIZABLE: u32 = 7;

/// A parsed `RangeRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeQuery {
    /// The request without its gRPC head.
    message: Bytes,
    /// Positions of the values of `key` and `range_end` in `message`.
    key: (usize, usize),
    range_end: (usize, usize),
    /// Position of the field `serializable`, if the request contains it.
    serializable_field: Option<(usize, usize)>,
    /// The requested revision; 0 or below for the latest.
    revision: i64,
    serializable: bool,
}

impl RangeQuery {
    /// Parses a framed request. Returns `None` if it is incomplete, compressed or not understood.
    pub fn parse(framed: &Bytes) -> Option<RangeQuery> {
        let (head, message) = framed.split_at_checked(HEAD_LEN)?;
        let len = u32::from_be_bytes(head[1..].try_into().ok()?);
        if head[0] != 0 || len as usize != message.len() {
            return None;
        }
        let mut query = RangeQuery {
            message: framed.slice(HEAD_LEN..),
            key: (0, 0),
            range_end: (0, 0),
            serializable_field: None,
            revision: 0,
            serializable: false,
        };
        let mut occurrences = 0;
        for field in proto::fields(message) {
            let field = field.ok()?;
            match field.number {
                KEY => query.key = value_position(&field)?,
                // etcd up to 3.6 reads from the key on if the field is present and empty. etcd 3.7
                // reads one key.
                RANGE_END if field.value.is_empty() => return None,
                RANGE_END => query.range_end = value_position(&field)?,
                // protobuf encodes an int64 as the same 64 bits.
                REVISION => query.revision = field.varint()? as i64,
                SERIALIZABLE => {
                    query.serializable = field.varint()? != 0;
                    query.serializable_field = Some((field.range.start, field.range.end));
                    occurrences += 1;
                }
                _ => {}
            }
        }
        // No client library writes the field twice.
        (occurrences <= 1).then_some(query)
    }

    /// Returns the request as received, without its gRPC head.
    pub fn message(&self) -> &Bytes {
        &self.message
    }

    /// Returns whether the read is serializable: any member may respond, even one that lags.
    pub fn is_serializable(&self) -> bool {
        self.serializable
    }

    /// Returns the requested revision, or `None` for the latest.
    pub fn revision(&self) -> Option<i64> {
        (self.revision > 0).then_some(self.revision)
    }

    /// Returns the range of keys, in an allocation of its own.
    pub fn range(&self) -> KeyRange {
        let part = |(start, end): (usize, usize)| Bytes::copy_from_slice(&self.message[start..end]);
        KeyRange::of(part(self.key), part(self.range_end))
    }

    /// Returns the request without the field `serializable`: the part that a serializable and a
    /// linearizable read of the same data have in common. In an allocation of its own.
    pub fn normalized(&self) -> Bytes {
        match self.serializable_field {
            None => Bytes::copy_from_slice(&self.message),
            Some((start, end)) => {
                let mut normalized = Vec::with_capacity(self.message.len());
                normalized.extend_from_slice(&self.message[..start]);
                normalized.extend_from_slice(&self.message[end..]);
                normalized.into()
            }
        }
    }

    /// Returns the linearizable request with another revision.
    pub fn normalized_at(&self, revision: i64) -> Bytes {
        let mut normalized = self.normalized().to_vec();
        // The last occurrence of a field counts. protobuf encodes an int64 as the same 64 bits.
        proto::put_varint_field(&mut normalized, REVISION, revision as u64);
        normalized.into()
    }
}

/// Returns the position of a field's value. Returns `None` for another wire type than bytes.
fn value_position(field: &Field<'_>) -> Option<(usize, usize)> {
    let end = field.range.end;
    (field.wire_type == WireType::Len).then_some((end - field.value.len(), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use crate::wire::pb::etcdserverpb::RangeRequest;
    use proptest::prelude::*;
    use prost::Message as _;

    #[test]
    fn rejects_an_empty_range_end_field() {
        for message in [
            &b"\x0a\x01k\x12\x00"[..],
            b"\x12\x00\x0a\x01k\x12\x01z",
            b"\x12\x01z\x12\x00",
        ] {
            assert_eq!(RangeQuery::parse(&frame::encode(message)), None);
        }
        assert!(RangeQuery::parse(&frame::encode(b"\x0a\x01k\x12\x01z")).is_some());
    }

    fn request() -> impl Strategy<Value = RangeRequest> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from);
        let small = || prop_oneof![Just(0i64), Just(1), Just(-1), any::<i64>()];
        (
            bytes(),
            bytes(),
            small(),
            small(),
            0..3i32,
            any::<[bool; 3]>(),
        )
            .prop_map(
                |(key, range_end, limit, revision, sort_order, [serializable, keys, count])| {
                    RangeRequest {
                        key,
                        range_end,
                        limit,
                        revision,
                        sort_order,
                        serializable,
                        keys_only: keys,
                        count_only: count,
                        ..RangeRequest::default()
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn parses_like_prost(request in request()) {
            let query = RangeQuery::parse(&frame::encode_message(&request)).unwrap();
            let RangeRequest { key, range_end, .. } = request.clone();
            prop_assert_eq!(query.range(), KeyRange::of(key, range_end));
            prop_assert_eq!(query.is_serializable(), request.serializable);
            prop_assert_eq!(query.revision(), Some(request.revision).filter(|r| *r > 0));
            // The result is the same request as a linearizable one, byte for byte.
            let plain = RangeRequest { serializable: false, ..request };
            prop_assert_eq!(&query.normalized()[..], &plain.encode_to_vec()[..]);
            let at = RangeRequest::decode(query.normalized_at(7)).unwrap();
            prop_assert_eq!(at, RangeRequest { revision: 7, ..plain });
        }

        #[test]
        fn accepts_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let framed = frame::encode(&bytes);
            let read = RangeQuery::parse(&framed);
            let decoded = RangeRequest::decode(&bytes[..]);
            if let (Some(query), Ok(request)) = (read, decoded) {
                let RangeRequest { key, range_end, .. } = request;
                prop_assert_eq!(query.range(), KeyRange::of(key, range_end));
                prop_assert_eq!(query.is_serializable(), request.serializable);
            }
        }
    }

    #[test]
    fn rejects_incomplete_malformed_and_compressed_requests() {
        let framed = frame::encode(b"\x0a\x01k\x38\x01");
        assert!(RangeQuery::parse(&framed).unwrap().is_serializable());
        assert_eq!(RangeQuery::parse(&framed.slice(..framed.len() - 1)), None);
        for other in [
            &b"\x38\x01\x0a\x01k\x38\x00"[..],
            b"\x08\x01",
            b"\x0a\x05k",
            b"\x3a\x01\x01",
        ] {
            assert_eq!(RangeQuery::parse(&frame::encode(other)), None);
        }
        let mut compressed = framed.to_vec();
        compressed[0] = 1;
        assert_eq!(RangeQuery::parse(&compressed.into()), None);
    }
}
