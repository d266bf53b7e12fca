//! The messages of etcd's API that the stream loads need (watches and leases), encoded and decoded
//! by hand like `etcdpb`.
//!
//! Field numbers are those of etcd's `rpc.proto` and `kv.proto`. Responses are decoded without
//! copies: a fan-out reads hundreds of thousands of them per second.

use bytes::Bytes;

use crate::etcdpb::{self, Field, bytes_field, varint_field, walk};

/// Path of the Watch method.
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// Path of the LeaseGrant method.
pub(crate) const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
/// Path of the LeaseRevoke method.
pub(crate) const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
/// Path of the LeaseKeepAlive method.
pub(crate) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// Returns a framed WatchCreateRequest for all keys with `prefix`. `start` 0 means from now on.
pub(crate) fn watch_prefix(prefix: &[u8], start: i64) -> Bytes {
    let mut create = Vec::new();
    bytes_field(&mut create, 1, prefix);
    bytes_field(&mut create, 2, &end_of_prefix(prefix));
    if start != 0 {
        varint_field(&mut create, 3, start);
    }
    let mut message = Vec::new();
    bytes_field(&mut message, 1, &create);
    framed(&message).into()
}

/// Returns a framed WatchCancelRequest.
pub(crate) fn watch_cancel(id: i64) -> Bytes {
    let mut message = Vec::new();
    bytes_field(&mut message, 2, &integer(1, id));
    framed(&message).into()
}

/// Returns a framed LeaseGrantRequest. The server chooses the id.
pub(crate) fn grant(ttl: i64) -> Bytes {
    framed(&integer(1, ttl)).into()
}

/// Returns a framed LeaseKeepAliveRequest or LeaseRevokeRequest: both contain only an id.
pub(crate) fn lease(id: i64) -> Bytes {
    framed(&integer(1, id)).into()
}

/// Returns the first key after all keys with `prefix`, which must not end in 0xff.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn integer(field: u8, value: i64) -> Vec<u8> {
    let mut message = Vec::new();
    if value != 0 {
        varint_field(&mut message, field, value);
    }
    message
}

/// A WatchResponse without its events, which [`events`] decodes from the same bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchResponse<'a> {
    pub(crate) revision: i64,
    pub(crate) id: i64,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    pub(crate) compact_revision: i64,
    pub(crate) reason: &'a [u8],
}

/// Decodes the fields of a WatchResponse, except the events.
pub(crate) fn watch_response(message: &[u8]) -> Result<WatchResponse<'_>, String> {
    let mut found = WatchResponse::default();
    walk(message, |field, content| {
        match (field, content) {
            (1, Field::Bytes(header)) => found.revision = header_revision(header)?,
            (2, Field::Varint(id)) => found.id = id.cast_signed(),
            (3, Field::Varint(flag)) => found.created = flag != 0,
            (4, Field::Varint(flag)) => found.canceled = flag != 0,
            (5, Field::Varint(revision)) => found.compact_revision = revision.cast_signed(),
            (6, Field::Bytes(reason)) => found.reason = reason,
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// An event of a WatchResponse.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) is_put: bool,
    pub(crate) key: &'a [u8],
    pub(crate) mod_revision: i64,
    pub(crate) value: &'a [u8],
}

/// Calls `each` for every event of a WatchResponse.
pub(crate) fn events<'a>(
    message: &'a [u8],
    mut each: impl FnMut(Event<'a>) -> Result<(), String>,
) -> Result<(), String> {
    walk(message, |field, content| match (field, content) {
        (11, Field::Bytes(event)) => each(read_event(event)?),
        _ => Ok(()),
    })
}

fn read_event(message: &[u8]) -> Result<Event<'_>, String> {
    let mut event = Event {
        is_put: true,
        ..Event::default()
    };
    walk(message, |field, content| {
        match (field, content) {
            (1, Field::Varint(kind)) => event.is_put = kind == 0,
            (2, Field::Bytes(pair)) => walk(pair, |field, content| {
                match (field, content) {
                    (1, Field::Bytes(key)) => event.key = key,
                    (3, Field::Varint(revision)) => event.mod_revision = revision.cast_signed(),
                    (5, Field::Bytes(value)) => event.value = value,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(event)
}

/// A LeaseGrantResponse or LeaseKeepAliveResponse.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseResponse {
    pub(crate) revision: i64,
    pub(crate) id: i64,
    pub(crate) ttl: i64,
}

/// Decodes an unframed LeaseGrantResponse or LeaseKeepAliveResponse.
pub(crate) fn lease_response(message: &[u8]) -> Result<LeaseResponse, String> {
    let mut found = LeaseResponse::default();
    walk(message, |field, content| {
        match (field, content) {
            (1, Field::Bytes(header)) => found.revision = header_revision(header)?,
            (2, Field::Varint(id)) => found.id = id.cast_signed(),
            (3, Field::Varint(ttl)) => found.ttl = ttl.cast_signed(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

fn header_revision(header: &[u8]) -> Result<i64, String> {
    etcdpb::header_revision(header).map(u64::cast_signed)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = etcdpb::frame_start(message.len());
    frame.extend(message);
    etcdpb::frame_end(frame)
}
