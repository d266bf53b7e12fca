//! Cases without waiting or sharing: pure functions of bytes, and the head of a request.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_edge::metrics::EndpointMetrics;
use etcd_edge::state_machine::picker::Picker;
use etcd_edge::upstream::attempt;
use etcd_edge::upstream::endpoint::Endpoint;
use etcd_edge::upstream::target::EndpointTarget;
use etcd_edge::wire::frame::{self, Reader, Scanner};
use etcd_edge::wire::method;
use etcd_edge::wire::namespace::{Namespace, RequestType, ResponseType};
use etcd_edge::wire::pb::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest,
    WatchResponse, compare, request_op,
};
use etcd_edge::wire::pb::mvccpb::{Event, KeyValue};
use etcd_edge::wire::proto;
use etcd_edge::wire::status::{percent_decode, percent_encode};
use etcd_edge::wire::timeout;
use http::Request;
use prost::Message;

use crate::relay::calls;

/// Repeats an operation. The compiler cannot derive anything from its input.
fn repeat<I, O>(rounds: u64, input: I, mut operation: impl FnMut(&I) -> O) {
    for _ in 0..rounds {
        black_box(operation(black_box(&input)));
    }
}

const LIMIT: u64 = 2 << 20;

pub(crate) fn frame_reader(rounds: u64) {
    let message = frame::encode(&[7; 100]);
    let mut reader = Reader::new(LIMIT);
    repeat(rounds, message, |message| {
        reader.push(message.clone());
        let whole = reader.next();
        assert!(matches!(whole, Ok(Some(_))) && reader.next() == Ok(None));
        whole
    });
}

pub(crate) fn frame_reader_pieces(rounds: u64) {
    let message = frame::encode(&vec![7; 64 * 1024]);
    let chunks: Vec<Bytes> = (0..message.len())
        .step_by(16 * 1024)
        .map(|at| message.slice(at..message.len().min(at + 16 * 1024)))
        .collect();
    let mut reader = Reader::new(LIMIT);
    repeat(rounds, chunks, |chunks| {
        let (last, before) = chunks.split_last().expect("five chunks");
        for chunk in before {
            reader.push(chunk.clone());
            assert!(reader.next() == Ok(None));
        }
        reader.push(last.clone());
        let whole = reader.next();
        assert!(matches!(whole, Ok(Some(_))));
        whole
    });
}

pub(crate) fn frame_scanner(rounds: u64) {
    let mut scanner = Scanner::new(LIMIT);
    repeat(rounds, frame::encode(&[7; 100]), |message| {
        assert!(scanner.feed(message) == Ok(1));
    });
}

pub(crate) fn frame_encode(rounds: u64) {
    repeat(rounds, [7; 100], |payload| frame::encode(payload));
}

pub(crate) fn frame_encode_message(rounds: u64) {
    let put = PutRequest {
        key: Bytes::from_static(b"registry/pods/default/web-0"),
        value: Bytes::from_static(&[7; 69]),
        ..PutRequest::default()
    };
    repeat(rounds, put, frame::encode_message);
}

fn percent(rounds: u64, text: &str) {
    repeat(rounds, text, |text| {
        let coded = percent_encode(text);
        let decoded = percent_decode(coded.as_bytes());
        assert!(decoded.len() == text.len());
        (coded, decoded)
    });
}

pub(crate) fn percent_plain(rounds: u64) {
    percent(rounds, "etcdserver: mvcc: required revision is gone.");
}

pub(crate) fn percent_coded(rounds: u64) {
    percent(
        rounds,
        "etcdserver: 100% of the quota: \u{e4}\u{f6}\u{fc}\nis used.",
    );
}

pub(crate) fn timeout_parse(rounds: u64) {
    repeat(rounds, *b"4998231u", |value| timeout::parse(value));
}

pub(crate) fn timeout_format(rounds: u64) {
    repeat(rounds, Duration::from_millis(4_999), |left| {
        timeout::format(*left)
    });
}

/// Calls `each` with the number and the value of every field of a message.
fn walk<'a>(message: &'a [u8], mut each: impl FnMut(u32, &'a [u8])) {
    for field in proto::fields(message) {
        let field = field.expect("well-formed");
        each(field.number, field.value);
    }
}

fn range(key: &'static [u8], range_end: &'static [u8]) -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(key),
        range_end: Bytes::from_static(range_end),
        limit: 500,
        revision: 1_234_567,
        serializable: true,
        ..RangeRequest::default()
    }
}

const KEY: u32 = 1;

pub(crate) fn walk_range(rounds: u64) {
    let message = range(b"registry/pods/default/", b"registry/pods/default0").encode_to_vec();
    repeat(rounds, message, |message| {
        let mut key = 0;
        walk(message, |number, value| {
            if number == KEY {
                key = value.len();
            }
        });
        assert!(key == 22);
    });
}

pub(crate) fn walk_txn(rounds: u64) {
    let compare = |revision| Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Mod as i32,
        key: Bytes::from_static(b"registry/leases/web"),
        range_end: Bytes::new(),
        target_union: Some(compare::TargetUnion::ModRevision(revision)),
    };
    let op = |request| RequestOp {
        request: Some(request),
    };
    let put = PutRequest {
        key: Bytes::from_static(b"registry/leases/web"),
        value: Bytes::from_static(&[7; 300]),
        lease: 0x1234_5678_9abc,
        ..PutRequest::default()
    };
    let read = || request_op::Request::RequestRange(range(b"registry/leases/web", b""));
    let txn = TxnRequest {
        compare: vec![compare(1_234_567), compare(0)],
        success: vec![op(request_op::Request::RequestPut(put)), op(read())],
        failure: vec![op(read())],
    };
    repeat(rounds, txn.encode_to_vec(), |message| {
        let mut keys = 0;
        walk(message, |number, part| match number {
            // Field 1 is a compare. Its key is field 3.
            1 => walk(part, |number, _| keys += u64::from(number == 3)),
            _ => walk(part, |_, request| {
                walk(request, |number, _| keys += u64::from(number == KEY));
            }),
        });
        assert!(keys == 5);
    });
}

pub(crate) fn walk_watch(rounds: u64) {
    const EVENTS: u32 = 11;
    const KV: u32 = 2;
    let event = |n: i64| Event {
        kv: Some(KeyValue {
            key: Bytes::from(format!("registry/pods/default/web-{n:03}")),
            create_revision: 1_000_000 + n,
            mod_revision: 1_234_567 + n,
            version: 3,
            value: Bytes::from_static(&[7; 200]),
            lease: 0,
        }),
        ..Event::default()
    };
    let response = WatchResponse {
        header: Some(header()),
        watch_id: 7,
        events: (0..100).map(event).collect(),
        ..WatchResponse::default()
    };
    repeat(rounds, response.encode_to_vec(), |message| {
        let mut keys = 0;
        walk(message, |number, event| {
            if number == EVENTS {
                walk(event, |number, kv| {
                    if number == KV {
                        walk(kv, |number, _| keys += u64::from(number == KEY));
                    }
                });
            }
        });
        assert!(keys == 100);
    });
}

fn namespace() -> Namespace {
    Namespace::new(b"tenant-1/").expect("a prefix")
}

pub(crate) fn namespace_put(rounds: u64) {
    let put = PutRequest {
        key: Bytes::from_static(b"registry/pods/default/web-0"),
        value: Bytes::from_static(&[7; 69]),
        ..PutRequest::default()
    };
    let message = [Bytes::from(put.encode_to_vec())];
    let namespace = namespace();
    repeat(rounds, message, |message| {
        let stored = namespace
            .request(RequestType::Put, message)
            .expect("a valid request");
        assert!(stored.len() == 1 && stored[0].len() == message[0].len() + 9);
        stored
    });
}

pub(crate) fn namespace_range(rounds: u64) {
    let kv = KeyValue {
        key: Bytes::from_static(b"tenant-1/registry/pods/default/web-0"),
        create_revision: 1_000_000,
        mod_revision: 1_234_567,
        version: 3,
        value: Bytes::from_static(&[7; 64]),
        lease: 0,
    };
    let response = RangeResponse {
        header: Some(header()),
        kvs: vec![kv],
        more: false,
        count: 1,
    };
    let message = [Bytes::from(response.encode_to_vec())];
    let namespace = namespace();
    repeat(rounds, message, |message| {
        let shown = namespace
            .response(ResponseType::Range, message)
            .expect("it passes");
        assert!(shown.len() == 1 && shown[0].len() == message[0].len() - 9);
        shown
    });
}

fn header() -> ResponseHeader {
    ResponseHeader {
        cluster_id: 0x1234_5678_9abc_def0,
        member_id: 0x0fed_cba9_8765_4321,
        revision: 1_234_567,
        raft_term: 7,
    }
}

pub(crate) fn method_first(rounds: u64) {
    repeat(rounds, "/etcdserverpb.KV/Range", |path| {
        method::lookup(path)
    });
}

pub(crate) fn method_last(rounds: u64) {
    let last = method::all().last().expect("there are some").path;
    repeat(rounds, last, |path| method::lookup(path));
}

pub(crate) fn method_unknown(rounds: u64) {
    repeat(rounds, "/etcdserverpb.KV/Unheard", |path| {
        assert!(method::lookup(path).is_none());
    });
}

pub(crate) fn request_head(rounds: u64) {
    let endpoint = Endpoint::parse("http://127.0.0.1:2379").expect("an endpoint");
    let id = Picker::default().add(1).expect("an empty list");
    let metrics = Arc::new(EndpointMetrics::new("etcd".to_owned(), 1));
    let target = EndpointTarget::new(id, endpoint, false, metrics);
    let mut request = Request::post("http://127.0.0.1:23790/etcdserverpb.KV/Range");
    for (name, value) in calls::METADATA {
        request = request.header(name, value);
    }
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let left = Some(Duration::from_millis(4_998));
    repeat(rounds, head, |head| attempt::head(&target, head, left));
}
