//! Protobuf by field number: requests are written and answers looked into without generated code,
//! so that a test of the bytes shares nothing with what it tests.

/// A message being written.
#[derive(Clone, Debug, Default)]
pub struct Msg(Vec<u8>);

impl Msg {
    /// The empty message.
    pub fn new() -> Msg {
        Msg::default()
    }

    /// Appends an integer, enum or bool field.
    pub fn int(mut self, field: u32, value: i64) -> Msg {
        put_varint(&mut self.0, u64::from(field) << 3);
        // Two's complement, as protobuf writes negative int64.
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

/// A field's value as it is on the wire.
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

/// All fields of a message in their order; panics on what is not protobuf.
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

/// The value at a path of field numbers, the last if it is there more than once.
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

/// The integer at a path; 0 when absent, as proto3 has it.
pub fn int(message: &[u8], path: &[u32]) -> i64 {
    match find(message, path) {
        None => 0,
        Some(Value::Varint(value)) => value.cast_signed(),
        Some(other) => panic!("{path:?} is {other:?}"),
    }
}

/// The bytes at a path; empty when absent.
pub fn bytes(message: &[u8], path: &[u32]) -> Vec<u8> {
    match find(message, path) {
        None => Vec::new(),
        Some(Value::Bytes(value)) => value,
        Some(other) => panic!("{path:?} is {other:?}"),
    }
}

/// The message with every occurrence of the field at `path` taken out.
pub fn without(message: &[u8], path: &[u32]) -> Msg {
    let (first, rest) = path.split_first().expect("a path");
    fields(message)
        .into_iter()
        .fold(Msg::new(), |mut kept, (field, value)| match value {
            _ if field == *first && rest.is_empty() => kept,
            Value::Bytes(inner) if field == *first => kept.msg(field, without(&inner, rest)),
            Value::Bytes(inner) => kept.bytes(field, inner),
            Value::Varint(value) => kept.int(field, value.cast_signed()),
            Value::Fixed64(value) => {
                put_varint(&mut kept.0, u64::from(field) << 3 | 1);
                kept.0.extend(value);
                kept
            }
            Value::Fixed32(value) => {
                put_varint(&mut kept.0, u64::from(field) << 3 | 5);
                kept.0.extend(value);
                kept
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
    panic!("a varint of more than ten bytes");
}

fn take<'a, const N: usize>(from: &mut &'a [u8]) -> &'a [u8; N] {
    let (taken, rest) = from.split_first_chunk().expect("a whole message");
    *from = rest;
    taken
}
