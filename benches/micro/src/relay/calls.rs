//! The relayed calls, encoded as a Go client and etcd encode them.

use bytes::Bytes;
use etcd_edge::wire::frame;
use etcd_edge::wire::pb::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
};
use etcd_edge::wire::pb::mvccpb::KeyValue;

/// A call and its response.
pub(crate) struct Call {
    pub(crate) path: &'static str,
    /// Framed request message.
    pub(crate) request: Bytes,
    /// Framed response message.
    pub(crate) response: Bytes,
}

/// Headers that a Go client sends in addition to the path and the authority.
pub(crate) const METADATA: [(&str, &str); 5] = [
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.71.1"),
    ("te", "trailers"),
    ("client-api-version", "3.6.5"),
    ("grpc-timeout", "4998231u"),
];

const KEY: &str = "registry/pods/default/web-00";

/// Returns one of a hundred keys of equal length.
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

/// Returns a read of one of a hundred keys with values of 100 bytes.
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
    let response = RangeResponse {
        header: header(),
        kvs: vec![found],
        more: false,
        count: 1,
    };
    Call {
        path: "/etcdserverpb.KV/Range",
        request: frame::encode_message(&request),
        response: frame::encode_message(&response),
    }
}

/// Returns a put of 100 bytes.
pub(crate) fn put() -> Call {
    let request = PutRequest {
        key: key(0),
        value: Bytes::from_static(&[7; 100]),
        ..PutRequest::default()
    };
    let response = PutResponse {
        header: header(),
        prev_kv: None,
    };
    Call {
        path: "/etcdserverpb.KV/Put",
        request: frame::encode_message(&request),
        response: frame::encode_message(&response),
    }
}
