//! Requests of a watch stream to etcd, each a whole gRPC message.

use bytes::Bytes;

use crate::wire::frame;
use crate::wire::proto::{len_field_len, put_len_head, put_varint_field};
use crate::wire::range::KeyRange;

/// Asks for a watch of `range` from `start_revision` on, 0 for what comes after now, under an id of
/// the sender's own, not 0. Large answers may come in parts.
pub fn create(range: &KeyRange, start_revision: i64, prev_kv: bool, watch_id: i64) -> Bytes {
    let range_end = range.range_end();
    let mut create = Vec::with_capacity(range.start().len() + range_end.len() + 48);
    put_bytes_field(&mut create, 1, range.start());
    put_bytes_field(&mut create, 2, &range_end);
    put_number(&mut create, 3, start_revision.cast_unsigned());
    put_number(&mut create, 6, u64::from(prev_kv));
    put_number(&mut create, 7, watch_id.cast_unsigned());
    put_number(&mut create, 8, 1);
    union(1, &create)
}

/// Asks for the end of a watch. etcd says nothing to an id that it does not know.
pub fn cancel(watch_id: i64) -> Bytes {
    let mut cancel = Vec::with_capacity(11);
    put_number(&mut cancel, 1, watch_id.cast_unsigned());
    union(2, &cancel)
}

/// Asks how far all watches of the stream are. etcd answers when all are synced, else never.
pub fn progress() -> Bytes {
    union(3, &[])
}

fn union(number: u32, request: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(len_field_len(number, request.len()));
    put_bytes_field_always(&mut message, number, request);
    frame::encode(&message)
}

fn put_bytes_field(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    if !value.is_empty() {
        put_bytes_field_always(out, number, value);
    }
}

fn put_bytes_field_always(out: &mut Vec<u8>, number: u32, value: &[u8]) {
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
    fn assert_asks(message: &[u8], expected: RequestUnion) {
        let expected = WatchRequest {
            request_union: Some(expected),
        };
        assert_eq!(message[..5], frame::head(false, message.len() as u32 - 5));
        assert_eq!(WatchRequest::decode(&message[5..]), Ok(expected));
    }

    #[test]
    fn a_create_asks_for_what_was_said() {
        let ranges: [(&'static [u8], &'static [u8]); 4] =
            [(b"a", b""), (b"a", b"b"), (b"a", b"\0"), (b"\0", b"\0")];
        for (key, range_end) in ranges {
            let (key, range_end) = (Bytes::from_static(key), Bytes::from_static(range_end));
            let range = KeyRange::of(key.clone(), range_end.clone());
            for (start_revision, prev_kv, watch_id) in
                [(0, false, 1), (7, true, 300), (i64::MAX, false, i64::MAX)]
            {
                assert_asks(
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
    fn a_cancel_names_its_watch_and_progress_nothing() {
        for watch_id in [0, 1, i64::MAX, -1] {
            assert_asks(
                &cancel(watch_id),
                RequestUnion::CancelRequest(WatchCancelRequest { watch_id }),
            );
        }
        assert_asks(
            &progress(),
            RequestUnion::ProgressRequest(WatchProgressRequest {}),
        );
    }
}
