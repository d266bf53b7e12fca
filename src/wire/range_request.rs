//! What a `RangeRequest` asks, read off its bytes: what tells two reads apart, and what a cache must
//! know of one.
//!
//! Two requests with the same bytes ask the same. Where bytes differ and mean the same, they count as
//! different reads, which costs a read and no more. Whether a message is one that etcd takes is
//! etcd's to say; one that is not understood here is [`None`], and shares nothing.

use bytes::Bytes;

use crate::wire::frame::HEAD_LEN;
use crate::wire::proto::{self, Field, WireType};
use crate::wire::range::KeyRange;

/// Field numbers of `RangeRequest`.
const KEY: u32 = 1;
const RANGE_END: u32 = 2;
const REVISION: u32 = 4;
const SERIALIZABLE: u32 = 7;

/// A read as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The request without its frame.
    message: Bytes,
    /// Where the key and its range's end stand in it.
    key: (usize, usize),
    range_end: (usize, usize),
    /// The field that asks for a serializable read, if it is there once.
    flag: Option<(usize, usize)>,
    /// The revision it asks for; 0 or below for the latest.
    revision: i64,
    serializable: bool,
}

impl Asked {
    /// Reads a framed request that is all there; `None` when it is not, or is none.
    pub fn parse(framed: &Bytes) -> Option<Asked> {
        let (head, message) = framed.split_at_checked(HEAD_LEN)?;
        let len = u32::from_be_bytes(head[1..].try_into().ok()?);
        if head[0] != 0 || len as usize != message.len() {
            return None;
        }
        let mut asked = Asked {
            message: framed.slice(HEAD_LEN..),
            key: (0, 0),
            range_end: (0, 0),
            flag: None,
            revision: 0,
            serializable: false,
        };
        let mut flags = 0;
        for field in proto::fields(message) {
            let field = field.ok()?;
            match field.number {
                KEY => asked.key = place(&field)?,
                // One that is there and empty is all from the key on to etcd up to 3.6, and one key to 3.7.
                RANGE_END if field.value.is_empty() => return None,
                RANGE_END => asked.range_end = place(&field)?,
                // An int64 travels as the same 64 bits.
                REVISION => asked.revision = field.varint()? as i64,
                SERIALIZABLE => {
                    asked.serializable = field.varint()? != 0;
                    asked.flag = Some((field.range.start, field.range.end));
                    flags += 1;
                }
                _ => {}
            }
        }
        // Nobody writes it twice.
        (flags <= 1).then_some(asked)
    }

    /// The request as it came, without its frame.
    pub fn message(&self) -> &Bytes {
        &self.message
    }

    /// Whether any member may answer, however late it is.
    pub fn is_serializable(&self) -> bool {
        self.serializable
    }

    /// The revision it asks for; `None` for the latest.
    pub fn revision(&self) -> Option<i64> {
        (self.revision > 0).then_some(self.revision)
    }

    /// The keys it is about, in memory of their own.
    pub fn range(&self) -> KeyRange {
        let part = |(start, end): (usize, usize)| Bytes::copy_from_slice(&self.message[start..end]);
        KeyRange::of(part(self.key), part(self.range_end))
    }

    /// The request without the word of who may answer: what a serializable read and a linearizable one
    /// have in common. In memory of its own.
    pub fn question(&self) -> Bytes {
        match self.flag {
            None => Bytes::copy_from_slice(&self.message),
            Some((start, end)) => {
                let mut question = Vec::with_capacity(self.message.len());
                question.extend_from_slice(&self.message[..start]);
                question.extend_from_slice(&self.message[end..]);
                question.into()
            }
        }
    }

    /// The question, asked of the store as it was at a revision.
    pub fn question_at(&self, revision: i64) -> Bytes {
        let mut question = self.question().to_vec();
        // Of a field that is there twice the last counts; an int64 travels as the same 64 bits.
        proto::put_varint_field(&mut question, REVISION, revision as u64);
        question.into()
    }
}

/// Where a field's bytes stand; `None` for another layout.
fn place(field: &Field<'_>) -> Option<(usize, usize)> {
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
    fn an_end_that_is_there_and_empty_is_not_understood() {
        for message in [
            &b"\x0a\x01k\x12\x00"[..],
            b"\x12\x00\x0a\x01k\x12\x01z",
            b"\x12\x01z\x12\x00",
        ] {
            assert_eq!(Asked::parse(&frame::encode(message)), None);
        }
        assert!(Asked::parse(&frame::encode(b"\x0a\x01k\x12\x01z")).is_some());
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
        fn is_what_prost_reads(request in request()) {
            let asked = Asked::parse(&frame::encode_message(&request)).unwrap();
            let RangeRequest { key, range_end, .. } = request.clone();
            prop_assert_eq!(asked.range(), KeyRange::of(key, range_end));
            prop_assert_eq!(asked.is_serializable(), request.serializable);
            prop_assert_eq!(asked.revision(), Some(request.revision).filter(|r| *r > 0));
            // The question is the request as a linearizable one, to the letter.
            let plain = RangeRequest { serializable: false, ..request };
            prop_assert_eq!(&asked.question()[..], &plain.encode_to_vec()[..]);
            let at = RangeRequest::decode(asked.question_at(7)).unwrap();
            prop_assert_eq!(at, RangeRequest { revision: 7, ..plain });
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let framed = frame::encode(&bytes);
            let read = Asked::parse(&framed);
            let decoded = RangeRequest::decode(&bytes[..]);
            if let (Some(asked), Ok(request)) = (read, decoded) {
                let RangeRequest { key, range_end, .. } = request;
                prop_assert_eq!(asked.range(), KeyRange::of(key, range_end));
                prop_assert_eq!(asked.is_serializable(), request.serializable);
            }
        }
    }

    #[test]
    fn what_is_not_whole_or_not_plain_is_not_read() {
        let framed = frame::encode(b"\x0a\x01k\x38\x01");
        assert!(Asked::parse(&framed).unwrap().is_serializable());
        assert_eq!(Asked::parse(&framed.slice(..framed.len() - 1)), None);
        for other in [
            &b"\x38\x01\x0a\x01k\x38\x00"[..],
            b"\x08\x01",
            b"\x0a\x05k",
            b"\x3a\x01\x01",
        ] {
            assert_eq!(Asked::parse(&frame::encode(other)), None);
        }
        let mut compressed = framed.to_vec();
        compressed[0] = 1;
        assert_eq!(Asked::parse(&compressed.into()), None);
    }
}
