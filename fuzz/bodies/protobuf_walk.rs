//! Fuzz body for the protobuf walker: against a model, against its own encoder, and against the
//! generated decoder, which must find the same keys in the same bytes (N3).

use etcd_edge::wire::pb::etcdserverpb::{self as pb, request_op::Request};
use etcd_edge::wire::proto::{self, Depth, Field, ProtoError, WireType};
use prost::Message;

/// Uses the whole input as a message.
pub(crate) fn run(data: &[u8]) {
    check_walk(data);
    check_put(data);
    check_txn(data);
}

/// Walks any bytes and compares with the model. Fields that are read and written again mean the
/// same.
pub(crate) fn check_walk(message: &[u8]) {
    let mut model = Model { rest: message };
    let mut end = 0;
    let mut rewritten = Vec::new();
    for field in proto::fields(message) {
        match field {
            Ok(field) => {
                assert_eq!(Ok(Some(plain(&field))), model.next());
                assert_eq!(field.range.start, end);
                end = field.range.end;
                assert!(message[field.range.clone()].ends_with(field.value));
                write(&mut rewritten, &field);
            }
            Err(error) => {
                assert_eq!(model.next(), Err(error));
                assert_eq!(proto::find_last(message, 1), Err(error));
                return;
            }
        }
    }
    assert_eq!((end, model.next()), (message.len(), Ok(None)));

    assert!(rewritten.len() <= message.len());
    let fields = || proto::fields(message).map(Result::unwrap);
    let again = proto::fields(&rewritten).map(Result::unwrap);
    assert!(
        again
            .map(|f| comparable(&f))
            .eq(fields().map(|f| comparable(&f)))
    );
    for number in fields().map(|f| f.number).chain([1]) {
        let last = fields().filter(|f| f.number == number).last();
        assert_eq!(proto::find_last(message, number), Ok(last));
    }
}

/// Checks that the generated decoder and the walker agree on a put.
pub(crate) fn check_put(message: &[u8]) {
    let decoded = pb::PutRequest::decode(message);
    let walked: Result<Vec<Field<'_>>, ProtoError> = proto::fields(message).collect();
    let fields = match walked {
        Ok(fields) => fields,
        // The decoder skips groups. It accepts nothing else that the walker rejects.
        Err(ProtoError::WireType(3 | 4)) => return,
        Err(error) => return assert!(decoded.is_err(), "only the walker rejects: {error}"),
    };
    let fits = fields.iter().all(|field| match field.number {
        1 | 2 => field.wire_type == WireType::Len,
        3..=6 => field.wire_type == WireType::Varint,
        _ => true,
    });
    assert_eq!(decoded.is_ok(), fits);
    let Ok(put) = decoded else { return };
    let last = |number| proto::find_last(message, number).unwrap();
    let bytes = |number| last(number).map_or(&[][..], |field| field.value);
    let int = |number| last(number).and_then(|field| field.varint()).unwrap_or(0);
    assert_eq!((&put.key[..], &put.value[..]), (bytes(1), bytes(2)));
    assert_eq!(put.lease, int(3) as i64);
    assert_eq!(put.prev_kv, int(4) != 0);
    assert_eq!(put.ignore_value, int(5) != 0);
    assert_eq!(put.ignore_lease, int(6) != 0);
}

/// Checks that the walker finds the same keys of a transaction as the decoder, at every depth.
/// Returns false if one of the two does not accept the message.
pub(crate) fn check_txn(message: &[u8]) -> bool {
    let mut walked = Vec::new();
    if walk_txn(message, Depth::new(40), &mut walked).is_none() {
        return false;
    }
    let Ok(txn) = pb::TxnRequest::decode(message) else {
        return false;
    };
    let mut decoded = Vec::new();
    decode_txn(&txn, &mut decoded);
    assert_eq!(walked, decoded);
    true
}

/// Collects the keys of a transaction: compares, then success, then failure. Returns `None` if the
/// walker would refuse to rewrite the message: malformed, a wrong wire type, two operations in one.
fn walk_txn(message: &[u8], depth: Depth, keys: &mut Vec<Vec<u8>>) -> Option<()> {
    let depth = depth.enter().ok()?;
    for part in 1..=3 {
        for field in proto::fields(message) {
            let field = field.ok()?;
            if !(1..=3).contains(&field.number) {
                continue;
            }
            if field.wire_type != WireType::Len {
                return None;
            }
            if field.number != part {
                continue;
            }
            match part {
                1 => keys.push(last_bytes(field.value, 3)?),
                _ => walk_op(field.value, depth, keys)?,
            }
        }
    }
    Some(())
}

fn walk_op(message: &[u8], depth: Depth, keys: &mut Vec<Vec<u8>>) -> Option<()> {
    let depth = depth.enter().ok()?;
    let mut op = None;
    for field in proto::fields(message) {
        let field = field.ok()?;
        if (1..=4).contains(&field.number)
            && (field.wire_type != WireType::Len || op.replace(field).is_some())
        {
            return None;
        }
    }
    match op {
        None => {}
        Some(field) if field.number == 4 => walk_txn(field.value, depth, keys)?,
        Some(field) => keys.push(last_bytes(field.value, 1)?),
    }
    Some(())
}

fn last_bytes(message: &[u8], number: u32) -> Option<Vec<u8>> {
    match proto::find_last(message, number).ok()? {
        None => Some(Vec::new()),
        Some(field) if field.wire_type == WireType::Len => Some(field.value.to_vec()),
        Some(_) => None,
    }
}

fn decode_txn(txn: &pb::TxnRequest, keys: &mut Vec<Vec<u8>>) {
    for compare in &txn.compare {
        keys.push(compare.key.to_vec());
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => keys.push(range.key.to_vec()),
            Some(Request::RequestPut(put)) => keys.push(put.key.to_vec()),
            Some(Request::RequestDeleteRange(delete)) => keys.push(delete.key.to_vec()),
            Some(Request::RequestTxn(txn)) => decode_txn(txn, keys),
            None => {}
        }
    }
}

/// A field in the model: number, wire type, value.
type Plain<'a> = (u64, u64, &'a [u8]);

fn plain<'a>(field: &Field<'a>) -> Plain<'a> {
    (u64::from(field.number), field.wire_type as u64, field.value)
}

/// Returns a field without the encoding of its varint.
fn comparable(field: &Field<'_>) -> (u32, WireType, Option<u64>, Vec<u8>) {
    let number = field.varint();
    let value = if number.is_some() { &[] } else { field.value };
    (field.number, field.wire_type, number, value.to_vec())
}

/// Writes a field in its shortest encoding.
fn write(out: &mut Vec<u8>, field: &Field<'_>) {
    let before = out.len();
    match field.wire_type {
        WireType::Varint => {
            proto::put_varint_field(out, field.number, field.varint().unwrap());
            return;
        }
        WireType::Len => {
            proto::put_len_head(out, field.number, field.value.len());
            let whole = proto::len_field_len(field.number, field.value.len());
            assert_eq!(out.len() - before + field.value.len(), whole);
        }
        WireType::Fixed64 | WireType::Fixed32 => {
            let tag = u64::from(field.number) * 8 + field.wire_type as u64;
            proto::put_varint(out, tag);
            assert_eq!(out.len() - before, proto::varint_len(tag));
        }
    }
    out.extend_from_slice(field.value);
}

/// Reads fields from the front, in integers too wide to overflow.
struct Model<'a> {
    rest: &'a [u8],
}

impl<'a> Model<'a> {
    fn next(&mut self) -> Result<Option<Plain<'a>>, ProtoError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?.0;
        let (number, wire_type) = (tag / 8, tag % 8);
        if number == 0 || number >= 1 << 29 {
            return Err(ProtoError::FieldNumber);
        }
        let value = match wire_type {
            0 => self.varint()?.1,
            1 => self.take(8)?,
            2 => {
                let len = self.varint()?.0;
                self.take(len)?
            }
            5 => self.take(4)?,
            _ => return Err(ProtoError::WireType(wire_type as u8)),
        };
        Ok(Some((number, wire_type, value)))
    }

    fn varint(&mut self) -> Result<(u64, &'a [u8]), ProtoError> {
        let more = self.rest.iter().take_while(|b| **b >= 0x80).count();
        // Ten bytes carry 70 bits. The tenth byte is rejected if the value exceeds 64 bits.
        if self.rest.len() > 9 && more >= 9 && self.rest[9] > 1 {
            return Err(ProtoError::Varint);
        }
        let raw = self.take(more as u64 + 1)?;
        let value = raw
            .iter()
            .rev()
            .fold(0u128, |n, b| n << 7 | u128::from(b & 0x7f));
        Ok((u64::try_from(value).unwrap(), raw))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], ProtoError> {
        if len > self.rest.len() as u64 {
            return Err(ProtoError::Truncated);
        }
        let (value, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(value)
    }
}
