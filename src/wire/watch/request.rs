//! Encoder for requests of a watch stream to etcd. Each request is a whole gRPC message.

use bytes::Bytes;

use crate::wire::frame;
use crate::wire::proto::{len_field_len, put_len_head, put_varint_field};
use crate::wire::range::KeyRange;

/// Encodes a create request for `range` from `start_revision` on, 0 for events after the creation.
/// The sender chooses `watch_id`, which is not 0. etcd may send large responses in fragments.
pub fn create(range: &KeyRange, start_revision: i64, prev_kv: bool, watch_id: i64) -> Bytes {
    let range_end = range.range_end();
    let mut create = Vec::with_capacity(range.start().len() + range_end.len() + 48);
    put_bytes_field(&mut create, 1, range.start());
    put_bytes_field(&mut create, 2, &range_end);
    put_number(&mut create, 3, start_revision.cast_unsigned());
    put_number(&mut create, 6, u64::from(prev_kv));
    put_number(&mut create, 7, watch_id.cast_unsigned());
    put_number(&mut create, 8, 1);
    encode_union(1, &create)
}

/// Encodes a cancel request. etcd does not respond if the ID is unknown.
pub fn cancel(watch_id: i64) -> Bytes {
    let mut cancel = Vec::with_capacity(11);
    put_number(&mut cancel, 1, watch_id.cast_unsigned());
    encode_union(2, &cancel)
}

/// Encodes a progress request. etcd responds once all watches of the stream are synced, else never.
pub fn progress() -> Bytes {
    encode_union(3, &[])
}

fn encode_union(number: u32, request: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(len_field_len(number, request.len()));
    put_bytes_field_even_empty(&mut message, number, request);
    frame::encode(&message)
}

fn put_bytes_field(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    if !value.is_empty() {
        put_bytes_field_even_empty(out, number, value);
    }
}

fn put_bytes_field_even_empty(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_len_head(out, number, value.len());
    out.extend_from_slice(value);
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
    use crate::wire::pb::etcdserverpb::watch_request::RequestUnion;
    use crate::wire::pb::etcdserverpb::{
        WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    };

    #[track_caller]
    fn assert_request(message: &[u8], expected: RequestUnion) {
        let expected = WatchRequest {
            request_union: Some(expected),
        };
        assert_eq!(message[..5], frame::head(false, message.len() as u32 - 5));
        assert_eq!(WatchRequest::decode(&message[5..]), Ok(expected));
    }

    #[test]
    fn a_create_request_contains_its_arguments() {
        let ranges: [(&'static [u8], &'static [u8]); 4] =
            [(b"a", b""), (b"a", b"b"), (b"a", b"\0"), (b"\0", b"\0")];
        for (key, range_end) in ranges {
            let (key, range_end) = (Bytes::from_static(key), Bytes::from_static(range_end));
            let range = KeyRange::of(key.clone(), range_end.clone());
            for (start_revision, prev_kv, watch_id) in
                [(0, false, 1), (7, true, 300), (i64::MAX, false, i64::MAX)]
            {
                assert_request(
                    &create(&range, start_revision, prev_kv, watch_id),
                    RequestUnion::CreateRequest(WatchCreateRequest {
                        key: key.clone(),
                        range_end: range_end.clone(),
                        start_revision,
                        prev_kv,
                        watch_id,
                        fragment: true,
                        ..WatchCreateRequest::default()
                    }),
                );
            }
        }
    }

    #[test]
    fn a_cancel_request_contains_its_watch_id() {
        for watch_id in [0, 1, i64::MAX, -1] {
            assert_request(
                &cancel(watch_id),
                RequestUnion::CancelRequest(WatchCancelRequest { watch_id }),
            );
        }
        assert_request(
            &progress(),
            RequestUnion::ProgressRequest(WatchProgressRequest {}),
        );
    }
}
