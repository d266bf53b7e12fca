//! Encoder for responses of a watch stream to clients.
//!
//! A response with events is a [`ResponseHead`] of a few bytes for one client watcher, and a
//! *tail*: the header and the events, encoded once for all client watchers that receive the same
//! events. The fields are in another order than etcd's; protobuf parsers accept any order.

use std::ops::Deref;

use bytes::Bytes;

use super::{Event, Header, Response};
use crate::wire::frame;
use crate::wire::proto::{len_field_len, put_len_head, put_varint_field, varint_len};
use crate::wire::range::KeyRange;

// Fields of a WatchResponse.
const HEADER: u32 = 1;
const WATCH_ID: u32 = 2;
const CREATED: u32 = 3;
const CANCELED: u32 = 4;
const COMPACT_REVISION: u32 = 5;
const CANCEL_REASON: u32 = 6;
const FRAGMENT: u32 = 7;
const EVENTS: u32 = 11;

/// Selects the events that a client watcher receives, and whether they contain `prev_kv` (W7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventFilter {
    /// Only events of keys in this range.
    pub range: KeyRange,
    /// Whether puts match (no filter NOPUT).
    pub puts: bool,
    /// Whether deletions match (no filter NODELETE).
    pub deletes: bool,
    /// Whether events contain `prev_kv`, if etcd sent it.
    pub prev_kv: bool,
}

impl EventFilter {
    /// Returns whether the client watcher receives the event.
    pub fn matches(&self, event: &Event) -> bool {
        let kind = if event.delete {
            self.deletes
        } else {
            self.puts
        };
        kind && self.range.contains(&event.key)
    }
}

/// Encodes the header and the matching events. Returns `None` if no event matches: such a response
/// is not sent.
pub fn tail<'a>(
    header: &Header,
    events: impl IntoIterator<Item = &'a Event>,
    filter: &EventFilter,
) -> Option<Bytes> {
    let matching: Vec<&Event> = events
        .into_iter()
        .filter(|event| filter.matches(event))
        .collect();
    (!matching.is_empty()).then(|| encode_tail(header, &matching, filter.prev_kv))
}

/// Like [`tail`], but in fragments for a client that requested `fragment`. Each fragment contains
/// as many events as fit below `max_bytes`, at least one. All but the last are sent with the flag
/// `fragment`. Empty if no event matches.
pub fn fragments<'a>(
    header: &Header,
    events: impl IntoIterator<Item = &'a Event>,
    filter: &EventFilter,
    max_bytes: usize,
) -> Vec<Bytes> {
    let mut fragments = Vec::new();
    let mut fragment: Vec<&Event> = Vec::new();
    let start = header_field_len(header);
    let mut bytes = start;
    for event in events.into_iter().filter(|event| filter.matches(event)) {
        let len = len_field_len(EVENTS, event_len(event, filter.prev_kv));
        if !fragment.is_empty() && bytes + len >= max_bytes {
            fragments.push(encode_tail(header, &fragment, filter.prev_kv));
            fragment.clear();
            bytes = start;
        }
        fragment.push(event);
        bytes += len;
    }
    if !fragment.is_empty() {
        fragments.push(encode_tail(header, &fragment, filter.prev_kv));
    }
    fragments
}

/// The bytes before a tail: the gRPC head of the whole message, the watch ID and the flag
/// `fragment`. Stored inline, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead {
    bytes: [u8; ResponseHead::MAX_LEN],
    len: u8,
}

impl ResponseHead {
    /// Maximum length in bytes: the gRPC head, a tag and ten bytes of an ID, a flag.
    pub const MAX_LEN: usize = frame::HEAD_LEN + 11 + 2;

    /// Encodes the head for a tail of `tail_len` bytes. The tail is shorter than 4 GiB, since its
    /// events come from one gRPC message of etcd.
    pub fn new(watch_id: i64, fragment: bool, tail_len: usize) -> ResponseHead {
        let mut bytes = [0; ResponseHead::MAX_LEN];
        let mut len = frame::HEAD_LEN;
        let mut put = |byte: u8| {
            bytes[len] = byte;
            len += 1;
        };
        let mut id = watch_id.cast_unsigned();
        if id != 0 {
            put(WATCH_ID as u8 * 8);
            while id >= 0x80 {
                // The truncation to the low seven bits is intended.
                put(id as u8 | 0x80);
                id >>= 7;
            }
            put(id as u8);
        }
        if fragment {
            put(FRAGMENT as u8 * 8);
            put(1);
        }
        let payload = (len - frame::HEAD_LEN + tail_len) as u32;
        bytes[..frame::HEAD_LEN].copy_from_slice(&frame::head(false, payload));
        // No truncation: at most MAX_LEN.
        let len = len as u8;
        ResponseHead { bytes, len }
    }
}

impl Deref for ResponseHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Encodes a whole gRPC message: created, canceled, progress, or events that are not shared.
pub fn encode(response: &Response) -> Bytes {
    let mut out = Vec::with_capacity(128 + response.cancel_reason.len());
    put_header(&mut out, &response.header);
    put_number(&mut out, WATCH_ID, response.watch_id.cast_unsigned());
    put_number(&mut out, CREATED, u64::from(response.created));
    put_number(&mut out, CANCELED, u64::from(response.canceled));
    put_number(
        &mut out,
        COMPACT_REVISION,
        response.compact_revision.cast_unsigned(),
    );
    if !response.cancel_reason.is_empty() {
        put_len_head(&mut out, CANCEL_REASON, response.cancel_reason.len());
        out.extend_from_slice(response.cancel_reason.as_bytes());
    }
    put_number(&mut out, FRAGMENT, u64::from(response.fragment));
    for event in &response.events {
        put_event(&mut out, event, true);
    }
    frame::encode(&out)
}

fn encode_tail(header: &Header, events: &[&Event], prev_kv: bool) -> Bytes {
    let lens = events
        .iter()
        .map(|event| len_field_len(EVENTS, event_len(event, prev_kv)));
    let mut out = Vec::with_capacity(header_field_len(header) + lens.sum::<usize>());
    put_header(&mut out, header);
    for event in events {
        put_event(&mut out, event, prev_kv);
    }
    Bytes::from(out)
}

fn put_event(out: &mut Vec<u8>, event: &Event, prev_kv: bool) {
    put_len_head(out, EVENTS, event_len(event, prev_kv));
    if prev_kv {
        out.extend_from_slice(&event.encoded);
    } else {
        out.extend_from_slice(&event.encoded[..event.prev_kv.start as usize]);
        out.extend_from_slice(&event.encoded[event.prev_kv.end as usize..]);
    }
}

/// Returns the length of an encoded event, with or without `prev_kv`.
fn event_len(event: &Event, prev_kv: bool) -> usize {
    let removed = if prev_kv { 0 } else { event.prev_kv.len() };
    event.encoded.len() - removed
}

/// Appends the header. etcd always sends one, so an empty header is sent too.
fn put_header(out: &mut Vec<u8>, header: &Header) {
    put_len_head(out, HEADER, header_len(header));
    for (number, value) in header_fields(header) {
        put_number(out, number, value);
    }
}

fn header_field_len(header: &Header) -> usize {
    len_field_len(HEADER, header_len(header))
}

fn header_len(header: &Header) -> usize {
    let fields = header_fields(header);
    let present = fields.iter().filter(|(_, value)| *value != 0);
    // The tag of a field number below 16 is one byte.
    present.map(|(_, value)| 1 + varint_len(*value)).sum()
}

fn header_fields(header: &Header) -> [(u32, u64); 4] {
    [
        (1, header.cluster_id),
        (2, header.member_id),
        (3, header.revision.cast_unsigned()),
        (4, header.raft_term),
    ]
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint_field(out, number, value);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::pb::etcdserverpb::WatchResponse;

    /// Creates an event of the key `k` with a `prev_kv` value of `len` bytes.
    fn event(revision: i64, len: usize) -> Event {
        let mut encoded = vec![0x12, 5, 0x0a, 1, b'k', 0x18, revision as u8];
        let prev_kv = encoded.len() as u32..(encoded.len() + 5 + len) as u32;
        encoded.extend([0x1a, len as u8 + 3, 0x0a, 1, b'k']);
        encoded.extend(vec![0x42; len]);
        Event {
            encoded: encoded.into(),
            key: Bytes::from_static(b"k"),
            revision,
            delete: false,
            prev_kv,
        }
    }

    fn filter() -> EventFilter {
        EventFilter {
            range: KeyRange::of(Bytes::from_static(b"k"), Bytes::new()),
            puts: true,
            deletes: true,
            prev_kv: false,
        }
    }

    #[test]
    fn head_and_tail_form_one_message() {
        let header = Header {
            revision: 9,
            ..Header::default()
        };
        let tail = tail(&header, &[event(9, 0)], &filter()).unwrap();
        for (watch_id, fragment) in [(0, false), (5, true), (i64::MAX, true), (-2, false)] {
            let head = ResponseHead::new(watch_id, fragment, tail.len());
            let message = [&head[..], &tail].concat();
            assert_eq!(message[..5], frame::head(false, message.len() as u32 - 5));
            let decoded = WatchResponse::decode(&message[5..]).unwrap();
            assert_eq!((decoded.watch_id, decoded.fragment), (watch_id, fragment));
            assert_eq!(decoded.header.unwrap().revision, 9);
            assert_eq!(decoded.events.len(), 1);
            assert_eq!(decoded.events[0].prev_kv, None);
        }
        assert_eq!(ResponseHead::new(-1, true, 0).len(), ResponseHead::MAX_LEN);
    }

    #[test]
    fn filtered_events_are_not_sent() {
        let header = Header::default();
        let nothing = [
            EventFilter {
                puts: false,
                ..filter()
            },
            EventFilter {
                range: KeyRange::of(Bytes::from_static(b"l"), Bytes::new()),
                ..filter()
            },
        ];
        for filter in nothing {
            assert_eq!(tail(&header, &[event(9, 0)], &filter), None);
            assert_eq!(
                fragments(&header, &[event(9, 0)], &filter, 1),
                [] as [Bytes; 0]
            );
        }
        let with = EventFilter {
            prev_kv: true,
            ..filter()
        };
        let long = tail(&header, &[event(9, 50)], &with).unwrap();
        assert_eq!(
            long.len(),
            tail(&header, &[event(9, 50)], &filter()).unwrap().len() + 55
        );
    }

    #[test]
    fn fragments_stay_below_the_limit() {
        let header = Header::default();
        let events: Vec<Event> = (1..7).map(|revision| event(revision, 0)).collect();
        let one = tail(&header, &events[..1], &filter()).unwrap().len();
        let all = tail(&header, &events, &filter()).unwrap().len();
        let count = |max| fragments(&header, &events, &filter(), max).len();
        assert_eq!(count(0), 6);
        assert_eq!(count(one + 1), 6);
        assert_eq!(count(2 * one), 3);
        assert_eq!(count(all), 2);
        assert_eq!(count(all + 1), 1);
    }
}
