//! Property tests of namespace translation over generated messages: requests in the format of
//! clients, responses in the format of etcd, and other messages. The checks are those of the fuzz
//! target.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use prost::Message;

use etcd_edge::wire::namespace::{RequestType, ResponseType};
use etcd_edge::wire::pb::etcdserverpb as pb;
use etcd_edge::wire::pb::etcdserverpb::{compare, request_op, response_op, watch_request};
use etcd_edge::wire::pb::mvccpb::{Event, KeyValue};
use etcd_edge::wire::proto;

#[path = "../fuzz/bodies/namespace.rs"]
mod namespace;

use namespace::{
    Campaign, Campaigned, Leader, LeaderKey, Locked, PREFIXES, Proclaim, REQUEST_SHAPES,
    RESPONSE_SHAPES, Unlock, check_request, check_response, check_visible,
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transactions_are_translated_at_every_depth(
        txn in txn(key().boxed()), prefix in prefix(), cut in any::<u8>(),
    ) {
        assert!(check_request(RequestType::Txn, prefix, &txn.encode_to_vec(), cut));
    }

    #[test]
    fn txn_with_an_empty_key_anywhere_is_rejected(
        txn in txn(text().boxed()), prefix in prefix(), cut in any::<u8>(),
    ) {
        let passes = check_request(RequestType::Txn, prefix, &txn.encode_to_vec(), cut);
        assert_eq!(passes, !lacks_key(&txn));
    }

    #[test]
    fn single_operations_are_translated(
        range in range(text().boxed()), put in put(text().boxed()), prefix in prefix(), cut in any::<u8>(),
    ) {
        let has_key = !range.key.is_empty();
        let message = range.encode_to_vec();
        assert_eq!(check_request(RequestType::Range, prefix, &message, cut), has_key);
        let delete = delete(&range).encode_to_vec();
        assert_eq!(check_request(RequestType::DeleteRange, prefix, &delete, cut), has_key);
        let has_key = !put.key.is_empty();
        let message = put.encode_to_vec();
        assert_eq!(check_request(RequestType::Put, prefix, &message, cut), has_key);
    }

    #[test]
    fn watches_are_translated(watch in watch(), prefix in prefix(), cut in any::<u8>()) {
        assert!(check_request(RequestType::Watch, prefix, &watch.encode_to_vec(), cut));
    }

    #[test]
    fn locks_and_elections_are_translated(
        leader in leader_key(), value in text(), prefix in prefix(), cut in any::<u8>(),
    ) {
        let LeaderKey { name, key, lease, .. } = leader.clone();
        let has_key = !key.is_empty();
        let campaign = Campaign { name, lease, value: value.clone() }.encode_to_vec();
        assert!(check_request(RequestType::Name, prefix, &campaign, cut));
        let unlock = Unlock { key }.encode_to_vec();
        assert_eq!(check_request(RequestType::Unlock, prefix, &unlock, cut), has_key);
        let leading = Proclaim { leader: Some(leader), value }.encode_to_vec();
        assert_eq!(check_request(RequestType::LeaderKey, prefix, &leading, cut), has_key);
    }

    #[test]
    fn key_responses_are_translated_back(
        txn in txn_response(), prefix in prefix(), cut in any::<u8>(),
    ) {
        for op in &txn.responses {
            match &op.response {
                Some(response_op::Response::ResponseRange(range)) => {
                    check_visible(ResponseType::Range, prefix, range, cut);
                    let stream = pb::RangeStreamResponse { range_response: Some(range.clone()) };
                    check_visible(ResponseType::RangeStream, prefix, &stream, cut);
                }
                Some(response_op::Response::ResponsePut(put)) => {
                    check_visible(ResponseType::Put, prefix, put, cut);
                }
                Some(response_op::Response::ResponseDeleteRange(delete)) => {
                    check_visible(ResponseType::DeleteRange, prefix, delete, cut);
                }
                _ => {}
            }
        }
        check_visible(ResponseType::Txn, prefix, &txn, cut);
    }

    #[test]
    fn other_responses_are_translated_back(
        events in vec((key_value(), option::of(key_value())), 0..5),
        leader in leader_key(), header in header(), prefix in prefix(), cut in any::<u8>(),
    ) {
        let keys = events.iter().map(|(kv, _)| kv.key.clone()).collect();
        let kv = events.first().map(|(kv, _)| kv.clone());
        let event = |(kv, prev_kv)| Event { r#type: 1, kv: Some(kv), prev_kv };
        let watch = pb::WatchResponse {
            header,
            watch_id: 7,
            events: events.into_iter().map(event).collect(),
            ..pb::WatchResponse::default()
        };
        check_visible(ResponseType::Watch, prefix, &watch, cut);
        let lease = pb::LeaseTimeToLiveResponse { header, keys, ..Default::default() };
        check_visible(ResponseType::LeaseTimeToLive, prefix, &lease, cut);
        check_visible(ResponseType::Leader, prefix, &Leader { header, kv }, cut);
        check_visible(ResponseType::Lock, prefix, &Locked { header, key: leader.key.clone() }, cut);
        let campaigned = Campaigned { header, leader: Some(leader) };
        check_visible(ResponseType::Campaign, prefix, &campaigned, cut);
    }

    #[test]
    fn accepted_messages_have_only_keys_inside_the_namespace(
        message in tree(), prefix in prefix(), cut in any::<u8>(), flip in any::<(u16, u8)>(),
    ) {
        check_all(prefix, &message, cut);
        let mut message = message;
        if !message.is_empty() {
            let at = usize::from(flip.0) % message.len();
            message[at] ^= flip.1;
            check_all(prefix, &message, cut);
        }
    }

    #[test]
    fn concatenated_messages_stay_inside_the_namespace(
        txns in vec(txn(key().boxed()), 2..3), cut in any::<u8>(), at in any::<(u16, u8)>(),
    ) {
        let mut message: Vec<u8> = txns.iter().flat_map(Message::encode_to_vec).collect();
        check_all(PREFIXES[0], &message, cut);
        if !message.is_empty() {
            let place = usize::from(at.0) % message.len();
            message[place] = at.1;
            check_all(PREFIXES[0], &message, cut);
        }
    }

    #[test]
    fn any_bytes_pass_the_checks(data in vec(any::<u8>(), 0..200)) {
        namespace::run(&data);
    }
}

fn check_all(prefix: &[u8], message: &[u8], cut: u8) {
    for shape in REQUEST_SHAPES {
        check_request(shape, prefix, message, cut);
    }
    for shape in RESPONSE_SHAPES {
        check_response(shape, prefix, message, cut);
    }
}

fn prefix() -> impl Strategy<Value = &'static [u8]> {
    (0..PREFIXES.len()).prop_map(|n| PREFIXES[n])
}

/// Generates keys, ends and values: edge cases of the rules, and texts too long to be copied.
fn text() -> impl Strategy<Value = Bytes> {
    let byte = prop_oneof![Just(0u8), Just(b'a'), Just(b'p'), Just(0xff), any::<u8>()];
    prop_oneof![
        2 => Just(Bytes::new()),
        2 => Just(Bytes::from_static(&[0])),
        8 => vec(byte, 1..4).prop_map(Bytes::from),
        4 => vec(any::<u8>(), 100..140).prop_map(Bytes::from),
        1 => (1000..3000usize).prop_map(|len| Bytes::from(vec![7; len])),
    ]
}

fn key() -> impl Strategy<Value = Bytes> {
    text().prop_map(|text| {
        if text.is_empty() {
            Bytes::from_static(b"k")
        } else {
            text
        }
    })
}

fn range(key: impl Strategy<Value = Bytes>) -> impl Strategy<Value = pb::RangeRequest> {
    (key, text(), any::<i64>(), any::<bool>()).prop_map(|(key, range_end, limit, serializable)| {
        pb::RangeRequest {
            key,
            range_end,
            limit,
            serializable,
            ..pb::RangeRequest::default()
        }
    })
}

fn delete(range: &pb::RangeRequest) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: range.key.clone(),
        range_end: range.range_end.clone(),
        prev_kv: range.serializable,
    }
}

fn put(key: impl Strategy<Value = Bytes>) -> impl Strategy<Value = pb::PutRequest> {
    (key, text(), any::<i64>()).prop_map(|(key, value, lease)| pb::PutRequest {
        key,
        value,
        lease,
        ..pb::PutRequest::default()
    })
}

fn txn(key: proptest::strategy::BoxedStrategy<Bytes>) -> impl Strategy<Value = pb::TxnRequest> {
    let leaf = prop_oneof![
        put(key.clone()).prop_map(request_op::Request::RequestPut),
        range(key.clone()).prop_map(request_op::Request::RequestRange),
        range(key.clone())
            .prop_map(|range| request_op::Request::RequestDeleteRange(delete(&range))),
    ];
    let op = leaf.prop_recursive(4, 30, 4, {
        let key = key.clone();
        move |inner| txn_of(key.clone(), inner).prop_map(request_op::Request::RequestTxn)
    });
    txn_of(key, op)
}

fn txn_of(
    key: impl Strategy<Value = Bytes>,
    request: impl Strategy<Value = request_op::Request>,
) -> impl Strategy<Value = pb::TxnRequest> {
    let op = option::weighted(0.9, request).prop_map(|request| pb::RequestOp { request });
    let target = option::of(text().prop_map(compare::TargetUnion::Value));
    let compare = (key, text(), target).prop_map(|(key, range_end, target_union)| pb::Compare {
        key,
        range_end,
        target_union,
        ..pb::Compare::default()
    });
    (vec(compare, 0..3), vec(op, 0..5)).prop_map(|(compare, mut success)| {
        let failure = success.split_off(success.len() / 2);
        pb::TxnRequest {
            compare,
            success,
            failure,
        }
    })
}

fn lacks_key(txn: &pb::TxnRequest) -> bool {
    let lacks = |op: &pb::RequestOp| match &op.request {
        Some(request_op::Request::RequestRange(range)) => range.key.is_empty(),
        Some(request_op::Request::RequestPut(put)) => put.key.is_empty(),
        Some(request_op::Request::RequestDeleteRange(delete)) => delete.key.is_empty(),
        Some(request_op::Request::RequestTxn(txn)) => lacks_key(txn),
        None => false,
    };
    txn.compare.iter().any(|compare| compare.key.is_empty())
        || txn.success.iter().chain(&txn.failure).any(lacks)
}

fn watch() -> impl Strategy<Value = pb::WatchRequest> {
    let create = (text(), text(), any::<i64>()).prop_map(|(key, range_end, start_revision)| {
        watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            ..pb::WatchCreateRequest::default()
        })
    });
    let cancel = any::<i64>().prop_map(|watch_id| {
        watch_request::RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })
    });
    let union = prop_oneof![4 => create, 1 => cancel];
    option::weighted(0.9, union).prop_map(|request_union| pb::WatchRequest { request_union })
}

fn leader_key() -> impl Strategy<Value = LeaderKey> {
    (text(), text(), any::<i64>(), any::<i64>()).prop_map(|(name, key, rev, lease)| LeaderKey {
        name,
        key,
        rev,
        lease,
    })
}

fn header() -> impl Strategy<Value = Option<pb::ResponseHeader>> {
    let header =
        (any::<u64>(), any::<i64>()).prop_map(|(cluster_id, revision)| pb::ResponseHeader {
            cluster_id,
            revision,
            ..pb::ResponseHeader::default()
        });
    option::of(header)
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    (text(), text(), any::<i64>()).prop_map(|(key, value, mod_revision)| KeyValue {
        key,
        value,
        mod_revision,
        ..KeyValue::default()
    })
}

fn txn_response() -> impl Strategy<Value = pb::TxnResponse> {
    let kvs = || vec(key_value(), 0..4);
    let leaf = prop_oneof![
        (kvs(), any::<i64>(), header()).prop_map(|(kvs, count, header)| {
            response_op::Response::ResponseRange(pb::RangeResponse {
                header,
                kvs,
                more: true,
                count,
            })
        }),
        (option::of(key_value()), header()).prop_map(|(prev_kv, header)| {
            response_op::Response::ResponsePut(pb::PutResponse { header, prev_kv })
        }),
        (kvs(), any::<i64>()).prop_map(|(prev_kvs, deleted)| {
            response_op::Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: None,
                deleted,
                prev_kvs,
            })
        }),
    ];
    let op = leaf.prop_recursive(4, 30, 4, |inner| {
        txn_response_of(inner).prop_map(response_op::Response::ResponseTxn)
    });
    txn_response_of(op)
}

fn txn_response_of(
    response: impl Strategy<Value = response_op::Response>,
) -> impl Strategy<Value = pb::TxnResponse> {
    let op = option::weighted(0.9, response).prop_map(|response| pb::ResponseOp { response });
    (header(), any::<bool>(), vec(op, 0..5)).prop_map(|(header, succeeded, responses)| {
        pb::TxnResponse {
            header,
            succeeded,
            responses,
        }
    })
}

/// Generates nested messages. They use the field numbers of all translated messages, in any order,
/// any encoding and any number.
fn tree() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![8 => 1..4u32, 2 => 4..9u32, 1 => Just(11), 1 => Just(64)];
    let prefixed = (0..PREFIXES.len(), text())
        .prop_map(|(n, text)| Bytes::from([PREFIXES[n], &text[..]].concat()));
    let value = prop_oneof![
        3 => text().prop_filter("short texts only", |text| text.len() < 200),
        1 => prefixed.prop_filter("short texts only", |text| text.len() < 200),
    ];
    let len = move |value: Bytes, number: u32, overlong: bool| {
        let mut field = Vec::new();
        proto::put_len_head(&mut field, number, value.len());
        if overlong && let Some(last) = field.last_mut() {
            *last |= 0x80;
            field.push(0);
        }
        field.extend_from_slice(&value);
        field
    };
    let leaf = prop_oneof![
        8 => (value, number(), any::<bool>())
            .prop_map(move |(value, number, overlong)| len(value, number, overlong)),
        1 => (number(), 0..8u8, any::<u64>()).prop_map(|(number, wire_type, value)| {
            let mut field = Vec::new();
            proto::put_varint(&mut field, u64::from(number) << 3 | u64::from(wire_type));
            proto::put_varint(&mut field, value);
            field
        }),
    ];
    let field = leaf.prop_recursive(6, 40, 4, move |inner| {
        (vec(inner, 0..4), number(), any::<bool>()).prop_map(move |(fields, number, overlong)| {
            len(Bytes::from(fields.concat()), number, overlong)
        })
    });
    vec(field, 0..4).prop_map(|fields| fields.concat())
}
