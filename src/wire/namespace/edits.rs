//! What changes in a message, as a list, and the message written with it. Long stretches between two
//! changes are shared with what arrived; short ones are copied, together with what is new, into one
//! piece of memory, so that a message leaves in few pieces.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::prefix::Namespace;
use crate::wire::frame::{self, HEAD_LEN};
use crate::wire::proto::{self, MAX_VARINT_LEN};

/// Unchanged bytes in a row, and in one piece, from which on they are shared: a frame of their own
/// costs about as much as to copy them.
pub(super) const SHARED_FROM: usize = 1024;

/// Edits that need no memory of their own: those of a put, a range, an answer with one or two keys.
const FEW: usize = 6;

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// Where in the message it begins. Edits stand in this order.
    pub(super) at: u32,
    /// Bytes of the message that it takes away.
    pub(super) cut: u32,
    /// What comes instead.
    pub(super) put: Put,
    /// The tag that comes first: one byte, 0 is none.
    pub(super) tag: u8,
    /// The length that is written before what is put.
    pub(super) len: u32,
}

/// What is written in place of what is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Nothing at all.
    Nothing,
    /// The length.
    Len,
    /// The length, then the prefix of the namespace.
    Prefix,
    /// The length, then its end.
    End,
    /// The length, then the key `\0` in it.
    First,
}

impl Put {
    /// Bytes of what follows the length.
    pub(super) fn text_len(self, namespace: &Namespace) -> usize {
        match self {
            Put::Nothing | Put::Len => 0,
            Put::Prefix => namespace.prefix().len(),
            Put::End => namespace.end().len(),
            Put::First => namespace.prefix().len() + 1,
        }
    }
}

impl Edit {
    /// How much longer it makes the message.
    pub(super) fn growth(&self, namespace: &Namespace) -> i64 {
        let put = match self.put {
            Put::Nothing => 0,
            put => {
                let head = usize::from(self.tag != 0) + proto::varint_len(u64::from(self.len));
                head + put.text_len(namespace)
            }
        };
        put as i64 - i64::from(self.cut)
    }
}

/// The changes of a message, in the order they stand in it.
#[derive(Debug)]
pub(super) struct Edits {
    /// The first ones; those from `count` on mean nothing.
    few: [Edit; FEW],
    count: usize,
    /// The rest.
    more: Vec<Edit>,
}

impl Edits {
    /// None.
    pub(super) fn new() -> Edits {
        let none = Edit {
            at: 0,
            cut: 0,
            put: Put::Nothing,
            tag: 0,
            len: 0,
        };
        Edits {
            few: [none; FEW],
            count: 0,
            more: Vec::new(),
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.count + self.more.len()
    }

    /// One more, behind the others.
    pub(super) fn push(&mut self, edit: Edit) {
        match self.few.get_mut(self.count) {
            Some(place) => {
                *place = edit;
                self.count += 1;
            }
            None => self.more.push(edit),
        }
    }

    /// Takes the last one back.
    pub(super) fn pop(&mut self) {
        if self.more.pop().is_none() {
            self.count = self.count.saturating_sub(1);
        }
    }

    /// The one that was pushed as the `n`th, from 0, to be changed.
    pub(super) fn get_mut(&mut self, n: usize) -> Option<&mut Edit> {
        if n < self.count {
            self.few.get_mut(n)
        } else {
            self.more.get_mut(n - self.count)
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.few[..self.count].iter().chain(&self.more)
    }

    /// The message with its changes, with its gRPC head if it is to be `framed`; none of its pieces is
    /// empty.
    pub(super) fn apply(
        &self,
        namespace: &Namespace,
        message: &[Bytes],
        framed: bool,
    ) -> Vec<Bytes> {
        if self.len() == 0 && !framed {
            let filled = message.iter().filter(|piece| !piece.is_empty());
            return filled.cloned().collect();
        }
        let (mut copied, mut shared, mut len) = (0, 0, 0);
        self.parts(namespace, message, |part| match part {
            Part::Copied(bytes) => copied += bytes.len(),
            Part::Shared(_, range) => {
                shared += 1;
                len += range.len();
            }
        });
        len += copied;
        // Exactly: what is left over would cost a second piece of memory.
        let head = if framed { HEAD_LEN } else { 0 };
        let mut fresh = BytesMut::with_capacity(copied + head);
        if framed {
            // What grows beyond four gigabytes had to be smaller to arrive, and larger than any limit.
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            fresh.extend_from_slice(&frame::head(false, len));
        }
        let mut pieces = Vec::with_capacity(2 * shared + 1);
        self.parts(namespace, message, |part| match part {
            Part::Copied(bytes) => fresh.extend_from_slice(bytes),
            Part::Shared(piece, range) => {
                if !fresh.is_empty() {
                    pieces.push(fresh.split().freeze());
                }
                pieces.push(piece.slice(range));
            }
        });
        if !fresh.is_empty() {
            pieces.push(fresh.freeze());
        }
        pieces
    }

    /// Tells what the changed message consists of, from front to back.
    fn parts(&self, namespace: &Namespace, message: &[Bytes], mut tell: impl FnMut(Part<'_>)) {
        let mut source = Source {
            pieces: message,
            at: 0,
            within: 0,
        };
        for edit in self.iter() {
            source.keep_to(edit.at as usize, &mut tell);
            source.cut(edit.cut as usize);
            let text = match edit.put {
                Put::Nothing => continue,
                Put::Len => &[][..],
                Put::Prefix | Put::First => namespace.prefix(),
                Put::End => namespace.end(),
            };
            if edit.tag != 0 {
                tell(Part::Copied(&[edit.tag]));
            }
            let mut varint = [0; MAX_VARINT_LEN];
            tell(Part::Copied(proto::write_varint(
                &mut varint,
                u64::from(edit.len),
            )));
            tell(Part::Copied(text));
            if edit.put == Put::First {
                tell(Part::Copied(&[0]));
            }
        }
        source.keep_to(usize::MAX, &mut tell);
    }
}

/// A stretch of a changed message.
enum Part<'a> {
    /// New, or short.
    Copied(&'a [u8]),
    /// A range of a piece of what arrived.
    Shared(&'a Bytes, Range<usize>),
}

/// What arrived, on its way into the changed message.
struct Source<'a> {
    /// The piece that is being taken, and those behind it.
    pieces: &'a [Bytes],
    /// Bytes of the message taken so far.
    at: usize,
    /// Of them in the first of the pieces.
    within: usize,
}

impl<'a> Source<'a> {
    /// Tells all from here to a place in the message, or to its end.
    fn keep_to(&mut self, to: usize, tell: &mut impl FnMut(Part<'_>)) {
        self.pass(to - self.at, |piece, range| {
            if range.len() >= SHARED_FROM {
                tell(Part::Shared(piece, range));
            } else {
                tell(Part::Copied(&piece[range]));
            }
        });
    }

    /// Leaves bytes out.
    fn cut(&mut self, count: usize) {
        self.pass(count, |_, _| {});
    }

    fn pass(&mut self, mut count: usize, mut tell: impl FnMut(&'a Bytes, Range<usize>)) {
        while let Some(piece) = self.pieces.first().filter(|_| count > 0) {
            let some = count.min(piece.len() - self.within);
            tell(piece, self.within..self.within + some);
            count -= some;
            self.at += some;
            self.within += some;
            if self.within == piece.len() {
                self.pieces = &self.pieces[1..];
                self.within = 0;
            }
        }
    }
}
