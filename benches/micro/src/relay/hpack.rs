//! HPACK encoder of the simulated client and etcd. Repeated fields are one byte from the dynamic
//! table, as with Go clients and etcd. No Huffman coding, and no table above the default size.

use std::collections::VecDeque;

/// Bytes that a field uses in the table in addition to its text (RFC 7541, 4.1).
const FIELD_OVERHEAD: usize = 32;
/// Default size of the dynamic table in bytes.
const TABLE_BYTES: usize = 4096;
/// Number of entries of the static table.
const STATIC: usize = 61;

/// Encoder of one direction of a connection.
#[derive(Default)]
pub(super) struct Encoder {
    /// Dynamic table, newest entry first.
    table: VecDeque<(&'static str, &'static str)>,
    bytes: usize,
}

impl Encoder {
    /// Appends a field.
    pub(super) fn field(&mut self, out: &mut Vec<u8>, name: &'static str, value: &'static str) {
        let fixed = match (name, value) {
            (":method", "POST") => Some(3),
            (":scheme", "http") => Some(6),
            (":status", "200") => Some(8),
            _ => None,
        };
        let known = self.table.iter().position(|field| *field == (name, value));
        if let Some(index) = fixed.or(known.map(|at| STATIC + 1 + at)) {
            // Below 127: the table has few fields.
            out.push(0x80 | index as u8);
            return;
        }
        // A literal with its name, added to the table.
        out.push(0x40);
        text(out, name);
        text(out, value);
        self.table.push_front((name, value));
        self.bytes += name.len() + value.len() + FIELD_OVERHEAD;
        assert!(self.bytes <= TABLE_BYTES, "the encoder evicts nothing");
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "longer lengths take more than a byte");
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
