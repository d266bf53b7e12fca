//! Walks the fields of a message that lies in several pieces, as strictly as [`proto::fields`] does
//! one that lies in one. Values are passed over, not joined.

use std::slice;

use bytes::Bytes;

use crate::wire::proto::{self, Head, MAX_HEAD_LEN, ProtoError};

/// A place in the pieces of a message.
pub(super) struct Cursor<'a> {
    /// Of the piece that is being read.
    rest: &'a [u8],
    behind: slice::Iter<'a, Bytes>,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Before the first byte.
    pub(super) fn new(pieces: &'a [Bytes]) -> Cursor<'a> {
        let mut behind = pieces.iter();
        Cursor {
            rest: behind.next().map_or(&[], |piece| piece),
            behind,
            at: 0,
        }
    }

    /// Bytes passed so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Reads the head of the next field of a message that ends at `end`, and stops before its value,
    /// which the message does have; `None` at its end.
    pub(super) fn head(&mut self, end: usize) -> Result<Option<Head>, ProtoError> {
        let left = end - self.at;
        if left == 0 {
            return Ok(None);
        }
        let count = left.min(MAX_HEAD_LEN);
        let head = match self.rest.get(..count) {
            Some(window) => proto::read_head(window)?,
            None => self.head_across(count)?,
        };
        if head.value_len > (left - head.len) as u64 {
            return Err(ProtoError::Truncated);
        }
        self.skip(head.len);
        Ok(Some(head))
    }

    /// Passes over bytes that are there.
    pub(super) fn skip(&mut self, mut count: usize) {
        self.at += count;
        while count > self.rest.len() {
            count -= self.rest.len();
            match self.behind.next() {
                Some(piece) => self.rest = piece,
                // Not to be had: the callers pass over what they know to be there.
                None => count = 0,
            }
        }
        self.rest = &self.rest[count..];
    }

    /// Whether the bytes from here on are these.
    pub(super) fn starts_with(&self, bytes: &[u8]) -> bool {
        let mut bytes = bytes;
        let mut piece = self.rest;
        let mut behind = self.behind.clone();
        loop {
            let both = bytes.len().min(piece.len());
            if bytes[..both] != piece[..both] {
                return false;
            }
            bytes = &bytes[both..];
            if bytes.is_empty() {
                return true;
            }
            match behind.next() {
                Some(next) => piece = next,
                None => return false,
            }
        }
    }

    /// Reads a head that may lie across pieces, from the next `count` bytes.
    #[cold]
    fn head_across(&self, count: usize) -> Result<Head, ProtoError> {
        let mut joined = [0; MAX_HEAD_LEN];
        let mut filled = 0;
        let mut piece = self.rest;
        let mut behind = self.behind.clone();
        loop {
            let some = piece.len().min(count - filled);
            joined[filled..filled + some].copy_from_slice(&piece[..some]);
            filled += some;
            match behind.next() {
                Some(next) if filled < count => piece = next,
                _ => return proto::read_head(&joined[..filled]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut a message into three, empty pieces among them.
    fn cuts(message: &'static [u8]) -> impl Iterator<Item = Vec<Bytes>> {
        (0..=message.len()).flat_map(move |first| {
            (first..=message.len()).map(move |second| {
                let cut = [
                    &message[..first],
                    &message[first..second],
                    &message[second..],
                ];
                cut.map(Bytes::from_static).to_vec()
            })
        })
    }

    #[test]
    fn fields_are_those_of_the_whole() {
        let message =
            b"\x08\x96\x01\x12\x03abc\x19\x01\x02\x03\x04\x05\x06\x07\x08\x25\x01\x02\x03\x04\x82\x84\x80\x00\x80\x00";
        for pieces in cuts(message) {
            let mut cursor = Cursor::new(&pieces);
            for field in proto::fields(message) {
                let field = field.unwrap();
                assert_eq!(cursor.at(), field.range.start);
                let head = cursor.head(message.len()).unwrap().unwrap();
                assert_eq!(
                    (head.number, head.wire_type),
                    (field.number, field.wire_type)
                );
                assert_eq!(head.value_len, field.value.len() as u64);
                assert!(cursor.starts_with(field.value));
                assert!(!cursor.starts_with(&[field.value, b"?"].concat()));
                cursor.skip(field.value.len());
            }
            assert_eq!(cursor.head(message.len()), Ok(None));
            assert!(cursor.starts_with(b"") && !cursor.starts_with(b"a"));
        }
    }

    #[test]
    fn a_field_ends_where_its_message_does() {
        // The bytes are there, but they are not the message's.
        for pieces in cuts(b"\x0a\x03abcdef") {
            for end in 1..5 {
                let mut cursor = Cursor::new(&pieces);
                assert_eq!(cursor.head(end), Err(ProtoError::Truncated), "{end}");
            }
            assert!(Cursor::new(&pieces).head(5).is_ok());
        }
    }
}
