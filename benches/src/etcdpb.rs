//! The messages of etcd's API that the unary loads need, encoded and decoded by hand.
//!
//! Deliberately independent of the proxy's wire code: a fault in that code must not hide a wrong
//! response. Field numbers are those of etcd's `rpc.proto` and `kv.proto`.

/// Path of the Range method.
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
/// Path of the Put method.
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
/// Path of the Txn method.
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
/// Path of the Status method.
pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Returns a framed request without fields.
pub(crate) fn empty() -> Vec<u8> {
    frame_end(frame_start(0))
}

/// Returns a framed RangeRequest for one key.
pub(crate) fn range(key: &[u8], serializable: bool) -> Vec<u8> {
    let mut frame = frame_start(key.len());
    range_fields(&mut frame, key);
    if serializable {
        frame.extend([7 << 3, 1]);
    }
    frame_end(frame)
}

/// Returns a framed PutRequest.
pub(crate) fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut frame = frame_start(key.len() + value.len());
    put_fields(&mut frame, key, value);
    frame_end(frame)
}

/// Returns a framed TxnRequest: if the key exists, put it and read it back.
pub(crate) fn txn(key: &[u8], value: &[u8]) -> Vec<u8> {
    let (mut compare, mut put, mut range) = (Vec::new(), Vec::new(), Vec::new());
    // Result GREATER, target VERSION (0, the default), compared with version 0 (the default).
    compare.extend([1 << 3, 1]);
    bytes_field(&mut compare, 3, key);
    put_fields(&mut put, key, value);
    range_fields(&mut range, key);
    let (mut put_op, mut range_op) = (Vec::new(), Vec::new());
    bytes_field(&mut put_op, 2, &put);
    bytes_field(&mut range_op, 1, &range);
    let mut frame = frame_start(put.len() + 3 * key.len());
    bytes_field(&mut frame, 1, &compare);
    bytes_field(&mut frame, 2, &put_op);
    bytes_field(&mut frame, 2, &range_op);
    frame_end(frame)
}

/// A key-value pair of etcd.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KeyValue<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) mod_revision: u64,
}

/// Result of a read of one existing key: the store's revision, and the pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found<'a> {
    pub(crate) revision: u64,
    pub(crate) pair: KeyValue<'a>,
}

/// Decodes the response to [`range`]: exactly one uncompressed frame, which contains a
/// RangeResponse with a header, exactly one pair, and a count of 1.
///
/// # Errors
///
/// Describes the first difference.
pub(crate) fn range_response(body: &[u8]) -> Result<Found<'_>, String> {
    found(unframed(body)?)
}

/// Checks that a response to [`range`] contains exactly the pair `key`, `value`.
pub(crate) fn check_range(body: &[u8], key: &[u8], value: &[u8]) -> Result<(), String> {
    let pair = range_response(body)?.pair;
    match (pair.key == key, pair.value == value) {
        (true, true) => Ok(()),
        (false, _) => Err("another key than requested".into()),
        (_, false) => Err("another value than was put".into()),
    }
}

/// Decodes the response to [`put`] and returns the revision of the put.
pub(crate) fn put_response(body: &[u8]) -> Result<u64, String> {
    let mut revision = None;
    walk(unframed(body)?, |field, content| {
        if let (1, Field::Bytes(header)) = (field, content) {
            revision = Some(header_revision(header)?);
        }
        Ok(())
    })?;
    revision.ok_or("a put response without a header".into())
}

/// Decodes the response to [`txn`]: the revision of the put, and the pair read after it.
pub(crate) fn txn_response(body: &[u8]) -> Result<Found<'_>, String> {
    let (mut revision, mut succeeded, mut put, mut read) = (None, 0, false, None);
    let mut responses = 0;
    walk(unframed(body)?, |field, content| {
        match (field, content) {
            (1, Field::Bytes(header)) => revision = Some(header_revision(header)?),
            (2, Field::Varint(value)) => succeeded = value,
            (3, Field::Bytes(response)) => {
                responses += 1;
                walk(response, |kind, content| {
                    match (kind, content) {
                        (1, Field::Bytes(range)) if responses == 2 => read = Some(pair_of(range)?),
                        (2, Field::Bytes(_)) if responses == 1 => put = true,
                        _ => return Err(format!("operation {responses} of a transaction: {kind}")),
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    match (revision, succeeded, put, read) {
        (Some(revision), 1, true, Some(pair)) => Ok(Found { revision, pair }),
        (revision, succeeded, put, read) => Err(format!(
            "a transaction response with revision {revision:?}, succeeded {succeeded}, put {put}, \
             read {}",
            read.is_some()
        )),
    }
}

fn found(message: &[u8]) -> Result<Found<'_>, String> {
    let mut revision = None;
    walk(message, |field, content| {
        if let (1, Field::Bytes(header)) = (field, content) {
            revision = Some(header_revision(header)?);
        }
        Ok(())
    })?;
    let pair = pair_of(message)?;
    let revision = revision.ok_or("a response without a header")?;
    Ok(Found { revision, pair })
}

/// Returns the only pair of a RangeResponse.
fn pair_of(message: &[u8]) -> Result<KeyValue<'_>, String> {
    let (mut pair, mut pairs, mut count) = (None, 0, 0);
    walk(message, |field, content| {
        match (field, content) {
            (2, Field::Bytes(found)) => {
                pairs += 1;
                pair = Some(key_value(found)?);
            }
            (4, Field::Varint(number)) => count = number,
            _ => {}
        }
        Ok(())
    })?;
    pair.filter(|_| pairs == 1 && count == 1)
        .ok_or_else(|| format!("response with {pairs} pairs, count {count}"))
}

fn key_value(message: &[u8]) -> Result<KeyValue<'_>, String> {
    let mut pair = KeyValue {
        key: &[],
        value: &[],
        mod_revision: 0,
    };
    walk(message, |field, content| {
        match (field, content) {
            (1, Field::Bytes(key)) => pair.key = key,
            (3, Field::Varint(revision)) => pair.mod_revision = revision,
            (5, Field::Bytes(value)) => pair.value = value,
            _ => {}
        }
        Ok(())
    })?;
    Ok(pair)
}

/// Returns the revision of a ResponseHeader.
pub(crate) fn header_revision(header: &[u8]) -> Result<u64, String> {
    let mut revision = 0;
    walk(header, |field, content| {
        if let (3, Field::Varint(value)) = (field, content) {
            revision = value;
        }
        Ok(())
    })?;
    Ok(revision)
}

/// Returns the version of a StatusResponse.
pub(crate) fn version(body: &[u8]) -> Result<String, String> {
    let mut version = String::new();
    walk(unframed(body)?, |field, content| {
        if let (2, Field::Bytes(text)) = (field, content) {
            version = String::from_utf8_lossy(text).into_owned();
        }
        Ok(())
    })?;
    Ok(version)
}

/// The value of a field.
pub(crate) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// Calls `each` for every field of a message. etcd's responses use only varints and byte strings.
pub(crate) fn walk<'a>(
    mut rest: &'a [u8],
    mut each: impl FnMut(u64, Field<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => each(tag >> 3, Field::Varint(varint(&mut rest)?))?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|e| e.to_string())?;
                let (content, after) = rest
                    .split_at_checked(length)
                    .ok_or("a field longer than its message")?;
                rest = after;
                each(tag >> 3, Field::Bytes(content))?;
            }
            kind => return Err(format!("wire type {kind}")),
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or("a cut varint")?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a varint over ten bytes".into())
}

/// Returns the message of a body that is exactly one uncompressed gRPC frame.
pub(crate) fn unframed(body: &[u8]) -> Result<&[u8], String> {
    match body {
        [0, a, b, c, d, message @ ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            if message.len() == length as usize {
                Ok(message)
            } else {
                Err(format!("frame of {length} in {} bytes", message.len()))
            }
        }
        _ => Err(format!(
            "no uncompressed gRPC frame in {} bytes",
            body.len()
        )),
    }
}

/// Allocates a frame for a message of about `content` bytes and reserves its 5-byte head.
pub(crate) fn frame_start(content: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(content + 64);
    frame.extend([0; 5]);
    frame
}

/// Writes the length of the message into the frame's head.
pub(crate) fn frame_end(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame
}

fn range_fields(message: &mut Vec<u8>, key: &[u8]) {
    bytes_field(message, 1, key);
}

fn put_fields(message: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    bytes_field(message, 1, key);
    bytes_field(message, 2, value);
}

/// Appends a length-delimited field. `field` is below 16.
pub(crate) fn bytes_field(message: &mut Vec<u8>, field: u8, content: &[u8]) {
    message.push(field << 3 | 2);
    push_varint(message, content.len() as u64);
    message.extend(content);
}

/// Appends an integer field. `field` is below 16.
pub(crate) fn varint_field(message: &mut Vec<u8>, field: u8, value: i64) {
    message.push(field << 3);
    push_varint(message, value.cast_unsigned());
}

fn push_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}
