//! Fuzz body for watch responses. The walker reads the same as the generated decoder. A response
//! written for clients, in one piece or in two, decodes to the intended message.

use bytes::Bytes;
use etcd_edge::wire::pb::{etcdserverpb as pb, mvccpb};
use etcd_edge::wire::range::KeyRange;
use etcd_edge::wire::response_header::Header;
use etcd_edge::wire::watch::response::{self, EventFilter, ResponseHead};
use etcd_edge::wire::watch::{Event, Response, WatchError};
use prost::Message;

/// Uses the whole input as a response of etcd. Its first byte also selects the cut.
pub(crate) fn run(data: &[u8]) {
    check(data, data.first().copied().unwrap_or(0));
}

/// Checks a response and reports whether it is accepted.
pub(crate) fn check(data: &[u8], draw: u8) -> bool {
    let message = Bytes::copy_from_slice(data);
    let decoded = pb::WatchResponse::decode(message.clone());
    match (Response::parse(&message), decoded) {
        (Ok(response), Ok(decoded)) => {
            check_read(&response, &decoded);
            check_written(&response, &decoded);
            check_filter(&response, &decoded, draw);
            true
        }
        (Ok(_), Err(error)) => panic!("only the decoder rejects: {error}"),
        (Err(_), Err(_)) => false,
        (Err(error), Ok(decoded)) => {
            check_rejected(error, &decoded);
            false
        }
    }
}

/// Checks that an error of the walker alone has a reason that the decoder does not have.
fn check_rejected(error: WatchError, decoded: &pb::WatchResponse) {
    match error {
        // The decoder skips groups.
        WatchError::Proto(_) => {
            assert!(matches!(error.to_string().as_str(), text if text.contains("wire type")))
        }
        // The decoder merges duplicates and truncates the number to 32 bits.
        WatchError::Duplicate(_) | WatchError::EventType(_) => {}
        WatchError::RevisionOrder => {
            let revisions = decoded.events.iter().map(revision);
            let revisions: Vec<i64> = std::iter::once(1).chain(revisions).collect();
            assert!(!revisions.is_sorted());
        }
        WatchError::WireType(_) | WatchError::Utf8 => panic!("only the walker rejects: {error}"),
    }
}

fn check_read(response: &Response, decoded: &pb::WatchResponse) {
    let header = decoded.header.unwrap_or_default();
    let expected = Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    };
    assert_eq!(response.header, expected);
    assert_eq!(response.watch_id, decoded.watch_id);
    assert_eq!(response.created, decoded.created);
    assert_eq!(response.canceled, decoded.canceled);
    assert_eq!(response.compact_revision, decoded.compact_revision);
    assert_eq!(response.cancel_reason, decoded.cancel_reason);
    assert_eq!(response.fragment, decoded.fragment);
    assert_eq!(response.events.len(), decoded.events.len());
    for (event, decoded) in response.events.iter().zip(&decoded.events) {
        let kv = decoded.kv.clone().unwrap_or_default();
        assert_eq!((&event.key, event.revision), (&kv.key, kv.mod_revision));
        assert_eq!(event.delete, decoded.r#type == 1);
        assert_eq!(event.prev_kv.is_empty(), decoded.prev_kv.is_none());
    }
}

fn check_written(response: &Response, decoded: &pb::WatchResponse) {
    let expected = pb::WatchResponse {
        header: Some(decoded.header.unwrap_or_default()),
        ..decoded.clone()
    };
    assert_eq!(unframe(&response::encode(response)), expected);
}

fn check_filter(response: &Response, decoded: &pb::WatchResponse, draw: u8) {
    let key = response.events.first().map(|event| event.key.clone());
    let range = match draw % 4 {
        0 => KeyRange::of(key.unwrap_or_default(), Bytes::new()),
        1 => KeyRange::of(key.unwrap_or_default(), Bytes::from_static(&[0])),
        _ => KeyRange::of(Bytes::new(), Bytes::from_static(&[0])),
    };
    let filter = EventFilter {
        range,
        puts: draw & 4 == 0,
        deletes: draw & 8 == 0,
        prev_kv: draw & 16 == 0,
    };
    let visible = |(event, decoded): (&Event, &mvccpb::Event)| {
        let shown = if event.delete {
            filter.deletes
        } else {
            filter.puts
        };
        (shown && filter.range.contains(&event.key)).then(|| mvccpb::Event {
            prev_kv: decoded.prev_kv.clone().filter(|_| filter.prev_kv),
            ..decoded.clone()
        })
    };
    let events: Vec<_> = response
        .events
        .iter()
        .zip(&decoded.events)
        .filter_map(visible)
        .collect();
    let expected = pb::WatchResponse {
        header: Some(decoded.header.unwrap_or_default()),
        watch_id: decoded.watch_id,
        events,
        ..pb::WatchResponse::default()
    };

    let tail = response::tail(&response.header, &response.events, &filter);
    assert_eq!(tail.is_none(), expected.events.is_empty());
    if let Some(tail) = &tail {
        assert_eq!(join(response.watch_id, false, tail), expected);
    }

    let max = usize::from(draw) * 2;
    let parts = response::fragments(&response.header, &response.events, &filter, max);
    assert_eq!(parts.is_empty(), tail.is_none());
    let mut joined = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let more = n + 1 < parts.len();
        let decoded = join(response.watch_id, more, part);
        assert_eq!((decoded.fragment, decoded.header), (more, expected.header));
        assert!(
            part.len() < max || decoded.events.len() == 1,
            "a part is too large"
        );
        joined.extend(decoded.events);
    }
    assert_eq!(joined, expected.events);
    if tail.is_some_and(|tail| tail.len() < max) {
        assert_eq!(parts.len(), 1, "unnecessary parts");
    }
}

/// Joins head and tail as a client receives them.
fn join(watch_id: i64, fragment: bool, tail: &[u8]) -> pb::WatchResponse {
    let head = ResponseHead::new(watch_id, fragment, tail.len());
    unframe(&[&head[..], tail].concat())
}

fn unframe(message: &[u8]) -> pb::WatchResponse {
    let len = u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize;
    assert_eq!((message[0], len), (0, message.len() - 5));
    pb::WatchResponse::decode(&message[5..]).unwrap()
}

fn revision(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
