//! Watch messages: answers of etcd are walked in place, so that their events are slices of what
//! arrived; [`request`] and [`answer`] write what is sent to etcd and to clients.
//!
//! The walk is strict where parsers differ: a known field of another layout, a singular message
//! that occurs twice, a kind of event that does not exist, a text that is no text, and events that
//! are not in the order of their revisions are refused. Fields not known here are passed over, in
//! an event they stay.

pub mod answer;
pub mod request;

use std::ops::Range;

use bytes::Bytes;

use super::proto::{self, Field, ProtoError, WireType};
use super::response_header::Header;

/// One event of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `mvccpb.Event` as etcd encoded it, without its tag and length.
    pub encoded: Bytes,
    /// The key it is about, within `encoded`.
    pub key: Bytes,
    /// Its `mod_revision`.
    pub revision: i64,
    /// A deletion; else a put.
    pub delete: bool,
    /// Where in `encoded` the whole field `prev_kv` lies; empty when there is none.
    pub prev_kv: Range<u32>,
}

/// One answer of a watch stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// Who answered, and when in the store's history.
    pub header: Header,
    /// The watch it is about; -1 for all of the stream.
    pub watch_id: i64,
    /// The answer to a create.
    pub created: bool,
    /// Nothing follows for this watch.
    pub canceled: bool,
    /// When not 0, why it was canceled: history before it is gone.
    pub compact_revision: i64,
    /// Why it was canceled or refused, in etcd's words.
    pub cancel_reason: String,
    /// More of the same response follows.
    pub fragment: bool,
    /// In the order of their revisions.
    pub events: Vec<Event>,
}

/// What is wrong with an answer's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchError {
    /// They are no protobuf message.
    Proto(ProtoError),
    /// A field of this number has a layout that is not its own.
    Layout(u32),
    /// A message that may be there once, of this field number, is there twice.
    Twice(u32),
    /// The reason of a cancel is not UTF-8.
    Text,
    /// An event that is neither a put nor a deletion.
    Kind(u64),
    /// The revision of an event is below 1 or below that of the event before it.
    Order,
}

impl std::fmt::Display for WatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proto(error) => error.fmt(f),
            Self::Layout(number) => write!(f, "field {number} has the wrong wire type"),
            Self::Twice(number) => write!(f, "field {number} occurs twice"),
            Self::Text => f.write_str("string is not valid UTF-8"),
            Self::Kind(kind) => write!(f, "unknown event type {kind}"),
            Self::Order => f.write_str("events are not in revision order"),
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
    /// Reads a `WatchResponse`, the payload of one gRPC message.
    ///
    /// # Errors
    /// When it is malformed; nothing of it can then be believed.
    pub fn parse(message: &Bytes) -> Result<Response, WatchError> {
        let mut response = Response::default();
        let mut header = false;
        for field in proto::fields(message) {
            let field = field?;
            match field.number {
                1 => {
                    once(&mut header, &field)?;
                    response.header = parse_header(bytes(&field)?)?;
                }
                2 => response.watch_id = int64(&field)?,
                3 => response.created = varint(&field)? != 0,
                4 => response.canceled = varint(&field)? != 0,
                5 => response.compact_revision = int64(&field)?,
                6 => {
                    let text = std::str::from_utf8(bytes(&field)?).map_err(|_| WatchError::Text)?;
                    text.clone_into(&mut response.cancel_reason);
                }
                7 => response.fragment = varint(&field)? != 0,
                11 => {
                    let event = parse_event(&message.slice_ref(bytes(&field)?))?;
                    let before = response.events.last().map_or(1, |last| last.revision);
                    if event.revision < before {
                        return Err(WatchError::Order);
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

/// Reads an `mvccpb.Event`.
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
                    other => return Err(WatchError::Kind(other)),
                };
            }
            2 => {
                once(&mut kv, &field)?;
                let kv = encoded.slice_ref(bytes(&field)?);
                (event.key, event.revision) = parse_key_value(&kv)?;
            }
            3 => {
                once(&mut prev_kv, &field)?;
                // What is passed on must be whole.
                parse_key_value(&encoded.slice_ref(bytes(&field)?))?;
                // A gRPC message is below 4 GiB; what is not cannot be one.
                let place = |at: usize| u32::try_from(at).map_err(|_| ProtoError::Truncated);
                event.prev_kv = place(field.range.start)?..place(field.range.end)?;
            }
            _ => {}
        }
    }
    Ok(event)
}

/// The key and the `mod_revision` of an `mvccpb.KeyValue`.
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

fn once(seen: &mut bool, field: &Field<'_>) -> Result<(), WatchError> {
    match std::mem::replace(seen, true) {
        true => Err(WatchError::Twice(field.number)),
        false => Ok(()),
    }
}

fn varint(field: &Field<'_>) -> Result<u64, WatchError> {
    field.varint().ok_or(WatchError::Layout(field.number))
}

/// An `int64` is its own two's complement.
fn int64(field: &Field<'_>) -> Result<i64, WatchError> {
    Ok(varint(field)?.cast_signed())
}

fn bytes<'a>(field: &Field<'a>) -> Result<&'a [u8], WatchError> {
    match field.wire_type {
        WireType::Len => Ok(field.value),
        _ => Err(WatchError::Layout(field.number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of some bytes.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, value.len() as u8], value].concat()
    }

    /// An event: kind, and its key and revision.
    fn event(kind: u8, key: &[u8], revision: u8) -> Vec<u8> {
        let kv = [&field(1, key)[..], &[0x18, revision]].concat();
        [&[0x08, kind][..], &field(2, &kv)].concat()
    }

    fn parse(parts: &[&[u8]]) -> Result<Response, WatchError> {
        Response::parse(&Bytes::from(parts.concat()))
    }

    #[test]
    fn events_are_slices_of_what_arrived() {
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
    fn what_parsers_read_differently_is_refused() {
        let put = event(0, b"k", 5);
        let kv = &put[2..];
        let cases: [(&[&[u8]], WatchError); 9] = [
            (&[&field(1, b""), &field(1, b"")], WatchError::Twice(1)),
            (&[&field(11, &[kv, kv].concat())], WatchError::Twice(2)),
            (
                &[b"\x0a\x01\x0b"],
                WatchError::Proto(ProtoError::WireType(3)),
            ),
            (&[&field(2, b"")], WatchError::Layout(2)),
            (&[b"\x30\x01"], WatchError::Layout(6)),
            (&[&field(6, b"\xff")], WatchError::Text),
            (&[&field(11, &event(2, b"k", 5))], WatchError::Kind(2)),
            (&[&field(11, &event(0, b"k", 0))], WatchError::Order),
            (
                &[&field(11, &put), &field(11, &event(0, b"k", 4))],
                WatchError::Order,
            ),
        ];
        for (parts, error) in cases {
            assert_eq!(parse(parts), Err(error));
            assert!(!error.to_string().is_empty());
        }
        // Of an event one does not know the kind as 32 bits, 1 is a deletion.
        let long = [b"\x08\x81\x80\x80\x80\x10", kv].concat();
        let kind = WatchError::Kind((1 << 32) + 1);
        assert_eq!(parse(&[&field(11, &long)]), Err(kind));
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let response = parse(&[b"\x78\x01", &field(11, &event(0, b"k", 5)), b"\x10\x03"]).unwrap();
        assert_eq!((response.watch_id, response.events.len()), (3, 1));
        assert_eq!(parse(&[]), Ok(Response::default()));
    }
}
