//! The edits of a message, and the builder of the edited message.
//!
//! Long unchanged parts are shared with the received buffers. Short unchanged parts and new bytes
//! are copied into one buffer, so that the result has few pieces.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::prefix::Namespace;
use crate::wire::frame::{self, HEAD_LEN};
use crate::wire::proto::{self, MAX_VARINT_LEN};

/// Minimum length of an unchanged part that is shared, in bytes. Sending a separate piece costs
/// about as much as copying this many bytes.
pub(super) const MIN_SHARED_LEN: usize = 1024;

/// Number of edits stored inline: enough for a put, a range, or a response with one or two keys.
const INLINE_EDITS: usize = 6;

/// One edit of a message: it removes bytes and inserts others in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// Position in the original message. Edits are in ascending order.
    pub(super) at: u32,
    /// Number of bytes removed.
    pub(super) removed: u32,
    /// Inserted bytes.
    pub(super) replacement: Replacement,
    /// Tag inserted first, one byte; 0 for none.
    pub(super) tag: u8,
    /// Length inserted before the replacement.
    pub(super) len: u32,
}

/// The bytes that an edit inserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// No bytes.
    Nothing,
    /// Only the length.
    Len,
    /// The length and the prefix of the namespace.
    Prefix,
    /// The length and the end of the namespace.
    End,
    /// The length and the key `\0` with the prefix.
    FirstKey,
}

impl Replacement {
    /// Returns the number of bytes after the length.
    pub(super) fn data_len(self, namespace: &Namespace) -> usize {
        match self {
            Replacement::Nothing | Replacement::Len => 0,
            Replacement::Prefix => namespace.prefix().len(),
            Replacement::End => namespace.end().len(),
            Replacement::FirstKey => namespace.prefix().len() + 1,
        }
    }
}

impl Edit {
    /// Returns the change of the message's length in bytes.
    pub(super) fn growth(&self, namespace: &Namespace) -> i64 {
        let replacement = match self.replacement {
            Replacement::Nothing => 0,
            replacement => {
                let head = usize::from(self.tag != 0) + proto::varint_len(u64::from(self.len));
                head + replacement.data_len(namespace)
            }
        };
        replacement as i64 - i64::from(self.removed)
    }
}

/// The edits of a message, in ascending order of position.
#[derive(Debug)]
pub(super) struct EditList {
    /// The first edits. Entries from `count` on are unused.
    inline: [Edit; INLINE_EDITS],
    count: usize,
    /// Edits that do not fit into `inline`.
    overflow: Vec<Edit>,
}

impl EditList {
    /// Creates an empty list.
    pub(super) fn new() -> EditList {
        let unused = Edit {
            at: 0,
            removed: 0,
            replacement: Replacement::Nothing,
            tag: 0,
            len: 0,
        };
        EditList {
            inline: [unused; INLINE_EDITS],
            count: 0,
            overflow: Vec::new(),
        }
    }

    /// Returns the number of edits.
    pub(super) fn len(&self) -> usize {
        self.count + self.overflow.len()
    }

    /// Appends an edit.
    pub(super) fn push(&mut self, edit: Edit) {
        match self.inline.get_mut(self.count) {
            Some(slot) => {
                *slot = edit;
                self.count += 1;
            }
            None => self.overflow.push(edit),
        }
    }

    /// Removes the last edit.
    pub(super) fn pop(&mut self) {
        if self.overflow.pop().is_none() {
            self.count = self.count.saturating_sub(1);
        }
    }

    /// Returns the edit at index `n`.
    pub(super) fn get_mut(&mut self, n: usize) -> Option<&mut Edit> {
        if n < self.count {
            self.inline.get_mut(n)
        } else {
            self.overflow.get_mut(n - self.count)
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.inline[..self.count].iter().chain(&self.overflow)
    }

    /// Returns the edited message, with its gRPC head if `framed`. No piece is empty.
    pub(super) fn apply(
        &self,
        namespace: &Namespace,
        message: &[Bytes],
        framed: bool,
    ) -> Vec<Bytes> {
        if self.len() == 0 && !framed {
            let nonempty = message.iter().filter(|piece| !piece.is_empty());
            return nonempty.cloned().collect();
        }
        let (mut copied, mut shared, mut len) = (0, 0, 0);
        self.emit_parts(namespace, message, |part| match part {
            Part::Copied(bytes) => copied += bytes.len(),
            Part::Shared(_, range) => {
                shared += 1;
                len += range.len();
            }
        });
        len += copied;
        // Exact, since spare capacity would cost a second allocation.
        let head = if framed { HEAD_LEN } else { 0 };
        let mut buffer = BytesMut::with_capacity(copied + head);
        if framed {
            // Unreachable: the message was below 4 GiB, and limits reject one that grows beyond.
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            buffer.extend_from_slice(&frame::head(false, len));
        }
        let mut pieces = Vec::with_capacity(2 * shared + 1);
        self.emit_parts(namespace, message, |part| match part {
            Part::Copied(bytes) => buffer.extend_from_slice(bytes),
            Part::Shared(piece, range) => {
                if !buffer.is_empty() {
                    pieces.push(buffer.split().freeze());
                }
                pieces.push(piece.slice(range));
            }
        });
        if !buffer.is_empty() {
            pieces.push(buffer.freeze());
        }
        pieces
    }

    /// Calls `emit` for each part of the edited message, in order.
    fn emit_parts(&self, namespace: &Namespace, message: &[Bytes], mut emit: impl FnMut(Part<'_>)) {
        let mut reader = MessageReader {
            pieces: message,
            at: 0,
            piece_at: 0,
        };
        for edit in self.iter() {
            reader.emit_to(edit.at as usize, &mut emit);
            reader.skip(edit.removed as usize);
            let data = match edit.replacement {
                Replacement::Nothing => continue,
                Replacement::Len => &[][..],
                Replacement::Prefix | Replacement::FirstKey => namespace.prefix(),
                Replacement::End => namespace.end(),
            };
            if edit.tag != 0 {
                emit(Part::Copied(&[edit.tag]));
            }
            let mut varint = [0; MAX_VARINT_LEN];
            emit(Part::Copied(proto::write_varint(
                &mut varint,
                u64::from(edit.len),
            )));
            emit(Part::Copied(data));
            if edit.replacement == Replacement::FirstKey {
                emit(Part::Copied(&[0]));
            }
        }
        reader.emit_to(usize::MAX, &mut emit);
    }
}

/// A part of an edited message.
enum Part<'a> {
    /// New or short: its bytes are copied.
    Copied(&'a [u8]),
    /// A range of a received piece, shared with the result.
    Shared(&'a Bytes, Range<usize>),
}

/// Reader of the original message.
struct MessageReader<'a> {
    /// The current piece and the pieces after it.
    pieces: &'a [Bytes],
    /// Position in the message, in bytes.
    at: usize,
    /// Position in the current piece, in bytes.
    piece_at: usize,
}

impl<'a> MessageReader<'a> {
    /// Emits all bytes up to position `to`, or up to the end of the message.
    fn emit_to(&mut self, to: usize, emit: &mut impl FnMut(Part<'_>)) {
        self.advance(to - self.at, |piece, range| {
            if range.len() >= MIN_SHARED_LEN {
                emit(Part::Shared(piece, range));
            } else {
                emit(Part::Copied(&piece[range]));
            }
        });
    }

    /// Skips `count` bytes.
    fn skip(&mut self, count: usize) {
        self.advance(count, |_, _| {});
    }

    fn advance(&mut self, mut count: usize, mut emit: impl FnMut(&'a Bytes, Range<usize>)) {
        while let Some(piece) = self.pieces.first().filter(|_| count > 0) {
            let len = count.min(piece.len() - self.piece_at);
            emit(piece, self.piece_at..self.piece_at + len);
            count -= len;
            self.at += len;
            self.piece_at += len;
            if self.piece_at == piece.len() {
                self.pieces = &self.pieces[1..];
                self.piece_at = 0;
            }
        }
    }
}
