//! Watch messages. This file parses responses of etcd in place: the events are slices of the
//! received bytes. [`request`] encodes requests to etcd, and [`response`] encodes responses to
//! clients.
//!
//! The parser is strict where protobuf parsers differ: it rejects a known field with a wrong wire
//! type, a repeated singular message, an unknown event type, a string that is not UTF-8, and events
//! out of revision order. Unknown fields are ignored; inside an event they are preserved.

pub mod request;
pub mod response;

use std::ops::Range;

use bytes::Bytes;

use super::proto::{self, Field, ProtoError, WireType};
use super::response_header::Header;

/// One event of a watch response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `mvccpb.Event` as etcd encoded it, without its tag and length.
    pub encoded: Bytes,
    /// Key of the event, a slice of `encoded`.
    pub key: Bytes,
    /// The event's `mod_revision`.
    pub revision: i64,
    /// Whether the event is a deletion. Otherwise it is a put.
    pub delete: bool,
    /// Position of the whole field `prev_kv` in `encoded`. Empty if the event has none.
    pub prev_kv: Range<u32>,
}

/// One response of a watch stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// Responding member, and revision of its store.
    pub header: Header,
    /// ID of the watch. -1 for the whole stream.
    pub watch_id: i64,
    /// Whether this is the response to a create request.
    pub created: bool,
    /// Whether the watch has ended.
    pub canceled: bool,
    /// If not 0, the watch was canceled because history before this revision is compacted.
    pub compact_revision: i64,
    /// Reason of a cancellation or refusal, as etcd wrote it.
    pub cancel_reason: String,
    /// Whether more fragments of the same response follow.
    pub fragment: bool,
    /// Events in revision order.
    pub events: Vec<Event>,
}

/// Error for a malformed watch response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchError {
    /// The bytes are not a protobuf message.
    Proto(ProtoError),
    /// The field with this number has a wrong wire type.
    WireType(u32),
    /// The singular message with this field number occurs twice.
    Duplicate(u32),
    /// The cancel reason is not UTF-8.
    Utf8,
    /// The event type is neither PUT nor DELETE.
    EventType(u64),
    /// The revision of an event is below 1 or below that of the previous event.
    RevisionOrder,
}

impl std::fmt::Display for WatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proto(error) => error.fmt(f),
            Self::WireType(number) => write!(f, "field {number} has the wrong wire type"),
            Self::Duplicate(number) => write!(f, "field {number} occurs twice"),
            Self::Utf8 => f.write_str("string is not valid UTF-8"),
            Self::EventType(kind) => write!(f, "unknown event type {kind}"),
            Self::RevisionOrder => f.write_str("events are not in revision order"),
        }
    }
}

impl std::error::Error for WatchError {}

impl From<ProtoError> for WatchError {
    fn from(error: ProtoError) -> WatchError {
        WatchError::Proto(error)
    }
}

impl Response {
    /// Parses a `WatchResponse`, the payload of one gRPC message.
    ///
    /// # Errors
    /// If the message is malformed. The caller must not use any part of it.
    pub fn parse(message: &Bytes) -> Result<Response, WatchError> {
        let mut response = Response::default();
        let mut header = false;
        for field in proto::fields(message) {
            let field = field?;
            match field.number {
                1 => {
                    check_singular(&mut header, &field)?;
                    response.header = parse_header(bytes(&field)?)?;
                }
                2 => response.watch_id = int64(&field)?,
                3 => response.created = varint(&field)? != 0,
                4 => response.canceled = varint(&field)? != 0,
                5 => response.compact_revision = int64(&field)?,
                6 => {
                    let text = std::str::from_utf8(bytes(&field)?).map_err(|_| WatchError::Utf8)?;
                    text.clone_into(&mut response.cancel_reason);
                }
                7 => response.fragment = varint(&field)? != 0,
                11 => {
                    let event = parse_event(&message.slice_ref(bytes(&field)?))?;
                    let before = response.events.last().map_or(1, |last| last.revision);
                    if event.revision < before {
                        return Err(WatchError::RevisionOrder);
                    }
                    response.events.push(event);
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

fn parse_header(message: &[u8]) -> Result<Header, WatchError> {
    let mut header = Header::default();
    for field in proto::fields(message) {
        let field = field?;
        match field.number {
            1 => header.cluster_id = varint(&field)?,
            2 => header.member_id = varint(&field)?,
            3 => header.revision = int64(&field)?,
            4 => header.raft_term = varint(&field)?,
            _ => {}
        }
    }
    Ok(header)
}

/// Parses an `mvccpb.Event`.
fn parse_event(encoded: &Bytes) -> Result<Event, WatchError> {
    let mut event = Event {
        encoded: encoded.clone(),
        key: Bytes::new(),
        revision: 0,
        delete: false,
        prev_kv: 0..0,
    };
    let (mut kv, mut prev_kv) = (false, false);
    for field in proto::fields(encoded) {
        let field = field?;
        match field.number {
            1 => {
                event.delete = match varint(&field)? {
                    0 => false,
                    1 => true,
                    other => return Err(WatchError::EventType(other)),
                };
            }
            2 => {
                check_singular(&mut kv, &field)?;
                let kv = encoded.slice_ref(bytes(&field)?);
                (event.key, event.revision) = parse_key_value(&kv)?;
            }
            3 => {
                check_singular(&mut prev_kv, &field)?;
                // Validated because the proxy forwards it to clients.
                parse_key_value(&encoded.slice_ref(bytes(&field)?))?;
                // A gRPC message is smaller than 4 GiB.
                let position = |at: usize| u32::try_from(at).map_err(|_| ProtoError::Truncated);
                event.prev_kv = position(field.range.start)?..position(field.range.end)?;
            }
            _ => {}
        }
    }
    Ok(event)
}

/// Returns the key and the `mod_revision` of an `mvccpb.KeyValue`.
fn parse_key_value(message: &Bytes) -> Result<(Bytes, i64), WatchError> {
    let (mut key, mut revision) = (Bytes::new(), 0);
    for field in proto::fields(message) {
        let field = field?;
        match field.number {
            1 => key = message.slice_ref(bytes(&field)?),
            3 => revision = int64(&field)?,
            2 | 4 | 6 => drop(varint(&field)?),
            5 => drop(bytes(&field)?),
            _ => {}
        }
    }
    Ok((key, revision))
}

fn check_singular(seen: &mut bool, field: &Field<'_>) -> Result<(), WatchError> {
    match std::mem::replace(seen, true) {
        true => Err(WatchError::Duplicate(field.number)),
        false => Ok(()),
    }
}

fn varint(field: &Field<'_>) -> Result<u64, WatchError> {
    field.varint().ok_or(WatchError::WireType(field.number))
}

/// Reads an `int64`, which protobuf encodes in two's complement.
fn int64(field: &Field<'_>) -> Result<i64, WatchError> {
    Ok(varint(field)?.cast_signed())
}

fn bytes<'a>(field: &Field<'a>) -> Result<&'a [u8], WatchError> {
    match field.wire_type {
        WireType::Len => Ok(field.value),
        _ => Err(WatchError::WireType(field.number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a field of bytes.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, value.len() as u8], value].concat()
    }

    /// Encodes an event of this type, key and revision.
    fn event(event_type: u8, key: &[u8], revision: u8) -> Vec<u8> {
        let kv = [&field(1, key)[..], &[0x18, revision]].concat();
        [&[0x08, event_type][..], &field(2, &kv)].concat()
    }

    fn parse(parts: &[&[u8]]) -> Result<Response, WatchError> {
        Response::parse(&Bytes::from(parts.concat()))
    }

    #[test]
    fn events_share_the_received_bytes() {
        let encoded = [event(1, b"key", 5), field(3, &field(1, b"key"))].concat();
        let message = Bytes::from(field(11, &encoded));
        let response = Response::parse(&message).unwrap();
        let [event] = &response.events[..] else {
            panic!("{response:?}");
        };
        assert_eq!((event.revision, event.delete), (5, true));
        assert_eq!(event.key, "key");
        assert_eq!(
            event.prev_kv,
            encoded.len() as u32 - 7..encoded.len() as u32
        );
        for slice in [&event.encoded, &event.key] {
            assert!(message.as_ptr_range().contains(&slice.as_ptr()), "a copy");
        }
    }

    #[test]
    fn rejects_input_that_parsers_read_differently() {
        let put = event(0, b"k", 5);
        let kv = &put[2..];
        let cases: [(&[&[u8]], WatchError); 9] = [
            (&[&field(1, b""), &field(1, b"")], WatchError::Duplicate(1)),
            (&[&field(11, &[kv, kv].concat())], WatchError::Duplicate(2)),
            (
                &[b"\x0a\x01\x0b"],
                WatchError::Proto(ProtoError::WireType(3)),
            ),
            (&[&field(2, b"")], WatchError::WireType(2)),
            (&[b"\x30\x01"], WatchError::WireType(6)),
            (&[&field(6, b"\xff")], WatchError::Utf8),
            (&[&field(11, &event(2, b"k", 5))], WatchError::EventType(2)),
            (&[&field(11, &event(0, b"k", 0))], WatchError::RevisionOrder),
            (
                &[&field(11, &put), &field(11, &event(0, b"k", 4))],
                WatchError::RevisionOrder,
            ),
        ];
        for (parts, error) in cases {
            assert_eq!(parse(parts), Err(error));
            assert!(!error.to_string().is_empty());
        }
        // A parser that truncates enums to 32 bits reads a deletion here.
        let long = [b"\x08\x81\x80\x80\x80\x10", kv].concat();
        let unknown_type = WatchError::EventType((1 << 32) + 1);
        assert_eq!(parse(&[&field(11, &long)]), Err(unknown_type));
    }

    #[test]
    fn ignores_unknown_fields() {
        let response = parse(&[b"\x78\x01", &field(11, &event(0, b"k", 5)), b"\x10\x03"]).unwrap();
        assert_eq!((response.watch_id, response.events.len()), (3, 1));
        assert_eq!(parse(&[]), Ok(Response::default()));
    }
}
