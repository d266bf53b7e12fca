//! The calls that are relayed, as a Go client and etcd put them on the wire.

use bytes::Bytes;
use etcd_edge::wire::frame;
use etcd_edge::wire::pb::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
};
use etcd_edge::wire::pb::mvccpb::KeyValue;

/// A call and its answer.
pub(crate) struct Call {
    pub(crate) path: &'static str,
    /// Message, framed.
    pub(crate) request: Bytes,
    /// The same of the answer.
    pub(crate) answer: Bytes,
}

/// What a Go client sends beside the path and the authority.
pub(crate) const METADATA: [(&str, &str); 5] = [
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.71.1"),
    ("te", "trailers"),
    ("client-api-version", "3.6.5"),
    ("grpc-timeout", "4998231u"),
];

const KEY: &str = "registry/pods/default/web-00";

/// One of a hundred keys, all of a length.
fn key(n: u64) -> Bytes {
    let stem = &KEY[..KEY.len() - 2];
    format!("{stem}{:02}", n % 100).into()
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: 0x1234_5678_9abc_def0,
        member_id: 0x0fed_cba9_8765_4321,
        revision: 1_234_567,
        raft_term: 7,
    })
}

/// A read of one of a hundred keys whose values have 100 bytes.
pub(crate) fn range(n: u64, serializable: bool) -> Call {
    let request = RangeRequest {
        key: key(n),
        serializable,
        ..RangeRequest::default()
    };
    let found = KeyValue {
        key: key(n),
        create_revision: 1_000_000,
        mod_revision: 1_200_000,
        version: 3,
        value: Bytes::from_static(&[7; 100]),
        lease: 0,
    };
    let answer = RangeResponse {
        header: header(),
        kvs: vec![found],
        more: false,
        count: 1,
    };
    Call {
        path: "/etcdserverpb.KV/Range",
        request: frame::encode_message(&request),
        answer: frame::encode_message(&answer),
    }
}

/// A write of 100 bytes.
pub(crate) fn put() -> Call {
    let request = PutRequest {
        key: key(0),
        value: Bytes::from_static(&[7; 100]),
        ..PutRequest::default()
    };
    let answer = PutResponse {
        header: header(),
        prev_kv: None,
    };
    Call {
        path: "/etcdserverpb.KV/Put",
        request: frame::encode_message(&request),
        answer: frame::encode_message(&answer),
    }
}
