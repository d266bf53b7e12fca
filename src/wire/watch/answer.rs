//! Answers of a watch stream to clients.
//!
//! An answer with events is a [`Head`] of a few bytes, made for one c-watcher, and a *tail*: the
//! header and the events, encoded once for all c-watchers that are shown the same. The fields stand
//! in another order than etcd's, which no parser minds.

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

/// Which events a c-watcher is shown, and what of them (W7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Those of keys in here.
    pub range: KeyRange,
    /// Puts (no filter NOPUT).
    pub puts: bool,
    /// Deletions (no filter NODELETE).
    pub deletes: bool,
    /// With their `prev_kv`, where there is one.
    pub prev_kv: bool,
}

impl Cut {
    /// Whether the event is shown.
    pub fn keeps(&self, event: &Event) -> bool {
        let kind = if event.delete {
            self.deletes
        } else {
            self.puts
        };
        kind && self.range.contains(&event.key)
    }
}

/// Header and events of an answer, cut. `None` when nothing is left: such an answer is not sent.
pub fn tail<'a>(
    header: &Header,
    events: impl IntoIterator<Item = &'a Event>,
    cut: &Cut,
) -> Option<Bytes> {
    let kept: Vec<&Event> = events
        .into_iter()
        .filter(|event| cut.keeps(event))
        .collect();
    (!kept.is_empty()).then(|| encode_tail(header, &kept, cut.prev_kv))
}

/// The same in parts for one who asked for `fragment`: as many events in each as stay below
/// `max_bytes`, or one. All but the last are sent with the flag. Empty when nothing is left.
pub fn parts<'a>(
    header: &Header,
    events: impl IntoIterator<Item = &'a Event>,
    cut: &Cut,
    max_bytes: usize,
) -> Vec<Bytes> {
    let mut parts = Vec::new();
    let mut part: Vec<&Event> = Vec::new();
    let start = header_field_len(header);
    let mut bytes = start;
    for event in events.into_iter().filter(|event| cut.keeps(event)) {
        let len = len_field_len(EVENTS, shown_len(event, cut.prev_kv));
        if !part.is_empty() && bytes + len >= max_bytes {
            parts.push(encode_tail(header, &part, cut.prev_kv));
            part.clear();
            bytes = start;
        }
        part.push(event);
        bytes += len;
    }
    if !part.is_empty() {
        parts.push(encode_tail(header, &part, cut.prev_kv));
    }
    parts
}

/// What stands before a tail: the gRPC head of the whole message, the watch and the flag. Kept in
/// place, without memory of its own.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    bytes: [u8; Head::MAX_LEN],
    len: u8,
}

impl Head {
    /// Most bytes one may have: the gRPC head, a tag and ten bytes of an id, a flag.
    pub const MAX_LEN: usize = frame::HEAD_LEN + 11 + 2;

    /// For a tail of `tail_len` bytes, below 4 GiB as all that is made of one gRPC message of etcd's.
    pub fn new(watch_id: i64, fragment: bool, tail_len: usize) -> Head {
        let mut bytes = [0; Head::MAX_LEN];
        let mut len = frame::HEAD_LEN;
        let mut put = |byte: u8| {
            bytes[len] = byte;
            len += 1;
        };
        let mut id = watch_id.cast_unsigned();
        if id != 0 {
            put(WATCH_ID as u8 * 8);
            while id >= 0x80 {
                // Takes the low seven bits on purpose.
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
        // At most MAX_LEN.
        let len = len as u8;
        Head { bytes, len }
    }
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A whole gRPC message: created, canceled, progress, or one for which nothing is shared.
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
        .map(|event| len_field_len(EVENTS, shown_len(event, prev_kv)));
    let mut out = Vec::with_capacity(header_field_len(header) + lens.sum::<usize>());
    put_header(&mut out, header);
    for event in events {
        put_event(&mut out, event, prev_kv);
    }
    Bytes::from(out)
}

fn put_event(out: &mut Vec<u8>, event: &Event, prev_kv: bool) {
    put_len_head(out, EVENTS, shown_len(event, prev_kv));
    if prev_kv {
        out.extend_from_slice(&event.encoded);
    } else {
        out.extend_from_slice(&event.encoded[..event.prev_kv.start as usize]);
        out.extend_from_slice(&event.encoded[event.prev_kv.end as usize..]);
    }
}

/// The bytes of an event as it is shown.
fn shown_len(event: &Event, prev_kv: bool) -> usize {
    let cut = if prev_kv { 0 } else { event.prev_kv.len() };
    event.encoded.len() - cut
}

/// etcd always sends one, so an empty one is sent too.
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
    // A tag of a number below 16 is one byte.
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

    /// An event of the key `k`: a value of `len` bytes, now and before.
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

    fn cut() -> Cut {
        Cut {
            range: KeyRange::of(Bytes::from_static(b"k"), Bytes::new()),
            puts: true,
            deletes: true,
            prev_kv: false,
        }
    }

    #[test]
    fn head_and_tail_are_one_message() {
        let header = Header {
            revision: 9,
            ..Header::default()
        };
        let tail = tail(&header, &[event(9, 0)], &cut()).unwrap();
        for (watch_id, fragment) in [(0, false), (5, true), (i64::MAX, true), (-2, false)] {
            let head = Head::new(watch_id, fragment, tail.len());
            let message = [&head[..], &tail].concat();
            assert_eq!(message[..5], frame::head(false, message.len() as u32 - 5));
            let decoded = WatchResponse::decode(&message[5..]).unwrap();
            assert_eq!((decoded.watch_id, decoded.fragment), (watch_id, fragment));
            assert_eq!(decoded.header.unwrap().revision, 9);
            assert_eq!(decoded.events.len(), 1);
            assert_eq!(decoded.events[0].prev_kv, None);
        }
        assert_eq!(Head::new(-1, true, 0).len(), Head::MAX_LEN);
    }

    #[test]
    fn what_is_cut_is_not_sent() {
        let header = Header::default();
        let nothing = [
            Cut {
                puts: false,
                ..cut()
            },
            Cut {
                range: KeyRange::of(Bytes::from_static(b"l"), Bytes::new()),
                ..cut()
            },
        ];
        for cut in nothing {
            assert_eq!(tail(&header, &[event(9, 0)], &cut), None);
            assert_eq!(parts(&header, &[event(9, 0)], &cut, 1), [] as [Bytes; 0]);
        }
        let with = Cut {
            prev_kv: true,
            ..cut()
        };
        let long = tail(&header, &[event(9, 50)], &with).unwrap();
        assert_eq!(
            long.len(),
            tail(&header, &[event(9, 50)], &cut()).unwrap().len() + 55
        );
    }

    #[test]
    fn parts_stay_below_their_limit() {
        let header = Header::default();
        let events: Vec<Event> = (1..7).map(|revision| event(revision, 0)).collect();
        let one = tail(&header, &events[..1], &cut()).unwrap().len();
        let all = tail(&header, &events, &cut()).unwrap().len();
        let count = |max| parts(&header, &events, &cut(), max).len();
        assert_eq!(count(0), 6);
        assert_eq!(count(one + 1), 6);
        assert_eq!(count(2 * one), 3);
        assert_eq!(count(all), 2);
        assert_eq!(count(all + 1), 1);
    }
}
