//! Property tests of the wire layer, over generated input that resembles real traffic. The checks
//! are those of the fuzz targets, which also produce unlikely input.

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::time::Duration;

use prost::Message;

use etcd_edge::wire::frame;
use etcd_edge::wire::pb::etcdserverpb::request_op::Request;
use etcd_edge::wire::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
    WatchResponse,
};
use etcd_edge::wire::pb::mvccpb::{Event, KeyValue};

#[path = "../fuzz/bodies/grpc_frames.rs"]
mod grpc_frames;
#[path = "../fuzz/bodies/grpc_message.rs"]
mod grpc_message;
#[path = "../fuzz/bodies/grpc_timeout.rs"]
mod grpc_timeout;
#[path = "../fuzz/bodies/protobuf_walk.rs"]
mod protobuf_walk;
#[path = "../fuzz/bodies/watch_response.rs"]
mod watch_response;

/// Size limit of the streams. Some of their messages exceed it by one byte.
const MAX_MESSAGE: usize = 300;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_match_the_models(data in vec(any::<u8>(), 0..200)) {
        grpc_frames::run(&data);
        grpc_message::run(&data);
        grpc_timeout::run(&data);
        protobuf_walk::run(&data);
        watch_response::run(&data);
    }

    #[test]
    fn frames_are_parsed_at_every_split(
        stream in stream(),
        sizes in vec(any::<u8>(), 0..8),
    ) {
        grpc_frames::check(&stream, &sizes, MAX_MESSAGE as u64);
    }

    #[test]
    fn one_cut_anywhere_changes_nothing(stream in stream(), cut in any::<u8>()) {
        grpc_frames::check(&stream, &[cut, 255, 255, 255], MAX_MESSAGE as u64);
    }

    #[test]
    fn header_values_near_a_timeout_match_the_model(value in "[0-9]{0,10}[+. -]?[HMSmunhs]?") {
        grpc_timeout::check_parse(value.as_bytes());
    }

    #[test]
    fn times_are_never_formatted_longer(
        seconds in any::<u64>(),
        shift in 0u32..64,
        nanos in 0u32..1_000_000_000,
    ) {
        grpc_timeout::check_format(Duration::new(seconds >> shift, nanos));
    }

    #[test]
    fn times_at_the_edge_of_a_unit_are_formatted(
        unit in 0usize..6,
        value in 99_999_990u64..100_000_010,
        nanos in 0u64..3,
    ) {
        let unit = [1, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000][unit];
        let nanos = u128::from(value) * unit + u128::from(nanos);
        let seconds = (nanos / 1_000_000_000) as u64;
        grpc_timeout::check_format(Duration::new(seconds, (nanos % 1_000_000_000) as u32));
    }

    #[test]
    fn status_texts_survive_the_header(text in any::<String>()) {
        grpc_message::check_encode(&text);
    }

    #[test]
    fn header_values_near_an_escape_match_the_model(value in "[%0-9a-fA-Fxyz\u{fc}]{0,20}") {
        grpc_message::check_decode(value.as_bytes());
    }

    #[test]
    fn fields_at_the_edge_of_the_format_match_the_model(message in vec(piece(), 0..6)) {
        protobuf_walk::run(&message.concat());
    }

    #[test]
    fn walker_and_decoder_agree_on_transactions(txn in txn(), cut in any::<u16>()) {
        let message = txn.encode_to_vec();
        protobuf_walk::check_walk(&message);
        assert!(protobuf_walk::check_txn(&message), "a well-formed transaction is rejected");
        protobuf_walk::run(&message[..usize::from(cut) % (message.len() + 1)]);
    }

    #[test]
    fn walker_and_decoder_agree_on_puts(
        puts in vec(put(), 1..4),
        junk in vec(any::<u8>(), 0..4),
    ) {
        // Concatenated messages are one message, in which the last value of each field counts.
        let mut message: Vec<u8> = puts.iter().flat_map(Message::encode_to_vec).collect();
        protobuf_walk::check_put(&message);
        message.extend(junk);
        protobuf_walk::run(&message);
    }

    #[test]
    fn watch_responses_are_read_and_written(
        response in watch_response(),
        draw in any::<u8>(),
        cut in any::<u16>(),
        flip in any::<(u16, u8)>(),
    ) {
        let mut message = response.encode_to_vec();
        assert!(watch_response::check(&message, draw), "a response of etcd is rejected");
        watch_response::check(&message[..usize::from(cut) % (message.len() + 1)], draw);
        if !message.is_empty() {
            let at = usize::from(flip.0) % message.len();
            message[at] ^= flip.1;
            watch_response::check(&message, draw);
        }
    }
}

/// Generates a stream of messages, with faulty ones now and then, that may end within a message.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        4 => 0..20usize,
        4 => 0..=MAX_MESSAGE,
        1 => Just(MAX_MESSAGE + 1),
    ];
    let flag = prop_oneof![20 => 0..=1u8, 1 => 2..=4u8];
    let message = (flag, len).prop_map(|(flag, len)| {
        let mut bytes = frame::head(false, len as u32).to_vec();
        bytes[0] = flag;
        bytes.extend((0..len).map(|i| i as u8));
        bytes
    });
    (vec(message, 0..6), any::<u16>()).prop_map(|(messages, cut)| {
        let mut stream = messages.concat();
        if cut % 2 == 0 {
            stream.truncate(usize::from(cut) % (stream.len() + 1));
        }
        stream
    })
}

fn bytes() -> impl Strategy<Value = bytes::Bytes> {
    vec(any::<u8>(), 0..140).prop_map(bytes::Bytes::from)
}

/// Generates parts of fields: tags and lengths in every encoding, in and out of range, and raw
/// bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        0..8u64,
        (1u64 << 29) - 2..(1 << 29) + 2,
        Just((1u64 << 32) + 1)
    ];
    let tag = (number, 0..8u64).prop_map(|(number, wire_type)| number * 8 + wire_type);
    let value = prop_oneof![tag, 0..12u64, any::<u64>()];
    let varint = (value, 1..12usize, prop_oneof![3 => Just(0), 1 => 0..4u8]).prop_map(
        |(value, len, extra)| {
            let mut bytes: Vec<u8> = (0..10).map(|i| (value >> (7 * i)) as u8 | 0x80).collect();
            bytes[9] = (bytes[9] & 1) + extra;
            while bytes.len() > len && bytes.last().is_some_and(|b| b & 0x7f == 0) {
                bytes.pop();
            }
            if let Some(last) = bytes.last_mut() {
                *last &= 0x7f;
            }
            bytes
        },
    );
    prop_oneof![3 => varint, 1 => vec(any::<u8>(), 0..9)]
}

fn put() -> impl Strategy<Value = PutRequest> {
    (bytes(), bytes(), any::<i64>(), any::<bool>()).prop_map(|(key, value, lease, prev_kv)| {
        PutRequest {
            key,
            value,
            lease,
            prev_kv,
            ..PutRequest::default()
        }
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        put().prop_map(Request::RequestPut),
        (bytes(), bytes()).prop_map(|(key, range_end)| {
            Request::RequestRange(RangeRequest {
                key,
                range_end,
                ..RangeRequest::default()
            })
        }),
        (bytes(), bytes()).prop_map(|(key, range_end)| {
            Request::RequestDeleteRange(DeleteRangeRequest {
                key,
                range_end,
                ..DeleteRangeRequest::default()
            })
        }),
    ];
    let op = leaf.prop_recursive(4, 30, 4, |inner| {
        txn_of(inner).prop_map(Request::RequestTxn)
    });
    txn_of(op)
}

fn txn_of(request: impl Strategy<Value = Request>) -> impl Strategy<Value = TxnRequest> {
    let op = request.prop_map(|request| RequestOp {
        request: Some(request),
    });
    let compare = bytes().prop_map(|key| Compare {
        key,
        ..Compare::default()
    });
    (vec(compare, 0..3), vec(op, 0..5)).prop_map(|(compare, mut success)| {
        let failure = success.split_off(success.len() / 2);
        TxnRequest {
            compare,
            success,
            failure,
        }
    })
}

/// Generates responses in etcd's format, with events in the order of their revisions.
fn watch_response() -> impl Strategy<Value = WatchResponse> {
    let header = (any::<u64>(), any::<u64>(), any::<i64>(), any::<u64>()).prop_map(
        |(cluster_id, member_id, revision, raft_term)| ResponseHeader {
            cluster_id,
            member_id,
            revision,
            raft_term,
        },
    );
    let key_value = || {
        (bytes(), bytes(), 1..i64::MAX).prop_map(|(key, value, mod_revision)| KeyValue {
            key,
            value,
            mod_revision,
            create_revision: mod_revision / 2,
            ..KeyValue::default()
        })
    };
    let event = (
        any::<bool>(),
        key_value(),
        proptest::option::of(key_value()),
    );
    let event = event.prop_map(|(delete, kv, prev_kv)| Event {
        r#type: i32::from(delete),
        kv: Some(kv),
        prev_kv,
    });
    let numbers = (
        any::<i64>(),
        any::<i64>(),
        any::<[bool; 3]>(),
        any::<String>(),
    );
    (header, numbers, vec(event, 0..6)).prop_map(|(header, numbers, mut events)| {
        events.sort_by_key(|event| event.kv.as_ref().map(|kv| kv.mod_revision));
        let (watch_id, compact_revision, [created, canceled, fragment], cancel_reason) = numbers;
        WatchResponse {
            header: Some(header),
            watch_id,
            created,
            canceled,
            compact_revision,
            cancel_reason,
            fragment,
            events,
        }
    })
}
