//! Reads the fields of a message that is split into several buffers. The cursor is as strict as
//! [`proto::fields`] for a contiguous message, and skips values without joining them.

use std::slice;

use bytes::Bytes;

use crate::wire::proto::{self, FieldHead, MAX_HEAD_LEN, ProtoError};

/// A position in a message that is split into pieces.
pub(super) struct Cursor<'a> {
    /// Unread bytes of the current piece.
    rest: &'a [u8],
    following: slice::Iter<'a, Bytes>,
    position: usize,
}

impl<'a> Cursor<'a> {
    /// Creates a cursor before the first byte.
    pub(super) fn new(pieces: &'a [Bytes]) -> Cursor<'a> {
        let mut following = pieces.iter();
        Cursor {
            rest: following.next().map_or(&[], |piece| piece),
            following,
            position: 0,
        }
    }

    /// Returns the position in bytes from the start.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Reads the head of the next field of a message that ends at `end`. The cursor then is before
    /// the value, which fits into the message. Returns `None` at the end.
    pub(super) fn read_head(&mut self, end: usize) -> Result<Option<FieldHead>, ProtoError> {
        let left = end - self.position;
        if left == 0 {
            return Ok(None);
        }
        let count = left.min(MAX_HEAD_LEN);
        let head = match self.rest.get(..count) {
            Some(window) => proto::read_head(window)?,
            None => self.read_split_head(count)?,
        };
        if head.value_len > (left - head.len) as u64 {
            return Err(ProtoError::Truncated);
        }
        self.skip(head.len);
        Ok(Some(head))
    }

    /// Skips `count` bytes, which must exist.
    pub(super) fn skip(&mut self, mut count: usize) {
        self.position += count;
        while count > self.rest.len() {
            count -= self.rest.len();
            match self.following.next() {
                Some(piece) => self.rest = piece,
                // Unreachable: callers skip only bytes that exist.
                None => count = 0,
            }
        }
        self.rest = &self.rest[count..];
    }

    /// Returns whether the unread bytes start with `bytes`.
    pub(super) fn starts_with(&self, bytes: &[u8]) -> bool {
        let mut bytes = bytes;
        let mut piece = self.rest;
        let mut following = self.following.clone();
        loop {
            let common = bytes.len().min(piece.len());
            if bytes[..common] != piece[..common] {
                return false;
            }
            bytes = &bytes[common..];
            if bytes.is_empty() {
                return true;
            }
            match following.next() {
                Some(next) => piece = next,
                None => return false,
            }
        }
    }

    /// Reads a head that may span several pieces, from the next `count` bytes.
    #[cold]
    fn read_split_head(&self, count: usize) -> Result<FieldHead, ProtoError> {
        let mut joined = [0; MAX_HEAD_LEN];
        let mut filled = 0;
        let mut piece = self.rest;
        let mut following = self.following.clone();
        loop {
            let len = piece.len().min(count - filled);
            joined[filled..filled + len].copy_from_slice(&piece[..len]);
            filled += len;
            match following.next() {
                Some(next) if filled < count => piece = next,
                _ => return proto::read_head(&joined[..filled]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every split of a message into three pieces, some of them empty.
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
    fn reads_the_fields_of_a_split_message() {
        let message =
            b"\x08\x96\x01\x12\x03abc\x19\x01\x02\x03\x04\x05\x06\x07\x08\x25\x01\x02\x03\x04\x82\x84\x80\x00\x80\x00";
        for pieces in cuts(message) {
            let mut cursor = Cursor::new(&pieces);
            for field in proto::fields(message) {
                let field = field.unwrap();
                assert_eq!(cursor.position(), field.range.start);
                let head = cursor.read_head(message.len()).unwrap().unwrap();
                assert_eq!(
                    (head.number, head.wire_type),
                    (field.number, field.wire_type)
                );
                assert_eq!(head.value_len, field.value.len() as u64);
                assert!(cursor.starts_with(field.value));
                assert!(!cursor.starts_with(&[field.value, b"?"].concat()));
                cursor.skip(field.value.len());
            }
            assert_eq!(cursor.read_head(message.len()), Ok(None));
            assert!(cursor.starts_with(b"") && !cursor.starts_with(b"a"));
        }
    }

    #[test]
    fn a_field_must_end_inside_its_message() {
        // The value's bytes exist, but past the end of the message.
        for pieces in cuts(b"\x0a\x03abcdef") {
            for end in 1..5 {
                let mut cursor = Cursor::new(&pieces);
                assert_eq!(cursor.read_head(end), Err(ProtoError::Truncated), "{end}");
            }
            assert!(Cursor::new(&pieces).read_head(5).is_ok());
        }
    }
}
