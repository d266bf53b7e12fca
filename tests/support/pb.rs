//! Protobuf by field number. Requests are written and responses read without generated code, so
//! that a test of the bytes shares no code with the proxy.

/// A message being written.
#[derive(Clone, Debug, Default)]
pub struct Msg(Vec<u8>);

impl Msg {
    /// Returns the empty message.
    pub fn new() -> Msg {
        Msg::default()
    }

    /// Appends an integer, enum or bool field.
    pub fn int(mut self, field: u32, value: i64) -> Msg {
        put_varint(&mut self.0, u64::from(field) << 3);
        // Protobuf encodes a negative int64 in two's complement.
        put_varint(&mut self.0, value.cast_unsigned());
        self
    }

    /// Appends a bytes or string field.
    pub fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Msg {
        put_varint(&mut self.0, u64::from(field) << 3 | 2);
        put_varint(&mut self.0, value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    /// Appends a message field.
    pub fn msg(self, field: u32, value: Msg) -> Msg {
        self.bytes(field, value.0)
    }
}

impl AsRef<[u8]> for Msg {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A field's value in its wire encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Integer, enum, bool.
    Varint(u64),
    /// Fixed64, double.
    Fixed64([u8; 8]),
    /// Bytes, string, message.
    Bytes(Vec<u8>),
    /// Fixed32, float.
    Fixed32([u8; 4]),
}

/// Returns all fields of a message in order.
///
/// # Panics
/// If the message is not protobuf.
pub fn fields(mut message: &[u8]) -> Vec<(u32, Value)> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let tag = take_varint(&mut message);
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut message)),
            1 => Value::Fixed64(*take::<8>(&mut message)),
            2 => {
                let length = usize::try_from(take_varint(&mut message)).expect("a length");
                let (value, rest) = message.split_at(length);
                message = rest;
                Value::Bytes(value.to_vec())
            }
            5 => Value::Fixed32(*take::<4>(&mut message)),
            other => panic!("wire type {other}"),
        };
        all.push((u32::try_from(tag >> 3).expect("a field number"), value));
    }
    all
}

/// Returns the value at a path of field numbers; the last one if the field is repeated.
pub fn find(message: &[u8], path: &[u32]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    let found = fields(message)
        .into_iter()
        .rev()
        .find(|(field, _)| field == first)?
        .1;
    match (rest, found) {
        ([], found) => Some(found),
        (rest, Value::Bytes(inner)) => find(&inner, rest),
        (_, other) => panic!("{path:?} leads into {other:?}"),
    }
}

/// Returns the integer at a path; 0 when absent, as in proto3.
pub fn int(message: &[u8], path: &[u32]) -> i64 {
    match find(message, path) {
        None => 0,
        Some(Value::Varint(value)) => value.cast_signed(),
        Some(other) => panic!("{path:?} is {other:?}"),
    }
}

/// Returns the bytes at a path; empty when absent.
pub fn bytes(message: &[u8], path: &[u32]) -> Vec<u8> {
    match find(message, path) {
        None => Vec::new(),
        Some(Value::Bytes(value)) => value,
        Some(other) => panic!("{path:?} is {other:?}"),
    }
}

/// Returns the message without any occurrence of the field at `path`.
pub fn without(message: &[u8], path: &[u32]) -> Msg {
    let (first, rest) = path.split_first().expect("a path");
    fields(message)
        .into_iter()
        .fold(Msg::new(), |mut rest_of, (field, value)| match value {
            _ if field == *first && rest.is_empty() => rest_of,
            Value::Bytes(inner) if field == *first => rest_of.msg(field, without(&inner, rest)),
            Value::Bytes(inner) => rest_of.bytes(field, inner),
            Value::Varint(value) => rest_of.int(field, value.cast_signed()),
            Value::Fixed64(value) => {
                put_varint(&mut rest_of.0, u64::from(field) << 3 | 1);
                rest_of.0.extend(value);
                rest_of
            }
            Value::Fixed32(value) => {
                put_varint(&mut rest_of.0, u64::from(field) << 3 | 5);
                rest_of.0.extend(value);
                rest_of
            }
        })
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(from: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = *take::<1>(from);
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint longer than ten bytes");
}

fn take<'a, const N: usize>(from: &mut &'a [u8]) -> &'a [u8; N] {
    let (taken, rest) = from.split_first_chunk().expect("a complete message");
    *from = rest;
    taken
}
