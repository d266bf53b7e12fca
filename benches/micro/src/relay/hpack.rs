//! HPACK for the two players: fields that repeat go out as one byte from the dynamic table, as
//! those of Go clients and of etcd do; no Huffman coding, no table larger than the default.

use std::collections::VecDeque;

/// RFC 7541: what a field takes of the table besides its text.
const FIELD_OVERHEAD: usize = 32;
/// The size a table has while nobody says otherwise.
const TABLE_BYTES: usize = 4096;
/// Entries of the static table.
const STATIC: usize = 61;

/// The sender's half of a connection's compression.
#[derive(Default)]
pub(super) struct Encoder {
    /// The newest first.
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
            // Below 127: the players have few fields.
            out.push(0x80 | index as u8);
            return;
        }
        // A literal with its name, to be added to the table.
        out.push(0x40);
        text(out, name);
        text(out, value);
        self.table.push_front((name, value));
        self.bytes += name.len() + value.len() + FIELD_OVERHEAD;
        assert!(self.bytes <= TABLE_BYTES, "the players evict nothing");
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "longer lengths take more than a byte");
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
