//! Walks a message by its shape and lists what a namespace changes in it (N3).
//!
//! Everything that two parsers could read in two ways is refused or made unequivocal. Nesting is
//! bounded, so that the stack is too; nothing is copied.

use bytes::Bytes;

use super::cursor::Cursor;
use super::edits::{Edit, Edits, Put};
use super::message_shapes::{Role, Shape};
use super::prefix::Namespace;
use super::refusal::Fault;
use crate::limits;
use crate::wire::proto::{Depth, Head, WireType};

/// Messages within the outermost one: an operation and its transaction for each level of nesting, then
/// an operation, its range, and a key of an answer.
const DEPTH: Depth = Depth::new(2 * limits::TRANSACTION_DEPTH + 3);

/// What a namespace changes in a message of this shape, with at most so many changes.
pub(super) fn edits(
    namespace: &Namespace,
    shape: &'static Shape,
    message: &[Bytes],
    most: usize,
) -> Result<Edits, Fault> {
    let len = message.iter().try_fold(0u32, |len, piece| {
        len.checked_add(u32::try_from(piece.len()).ok()?)
    });
    let len = len.ok_or(Fault::TooLong)? as usize;
    let mut walk = Walk {
        namespace,
        cursor: Cursor::new(message),
        edits: Edits::new(),
        most,
    };
    let growth = walk.message(shape, len, DEPTH)?;
    grown(len, growth)?;
    Ok(walk.edits)
}

struct Walk<'a> {
    namespace: &'a Namespace,
    cursor: Cursor<'a>,
    edits: Edits,
    most: usize,
}

/// Which fields of a message were met, by their places in its shape.
#[derive(Default)]
struct Met {
    any: u16,
    /// The last one was not empty.
    filled: u16,
    /// A member of the oneof.
    either: bool,
}

impl Walk<'_> {
    /// From here to the end of a message; how much longer it gets.
    fn message(&mut self, shape: &'static Shape, end: usize, depth: Depth) -> Result<i64, Fault> {
        let mut met = Met::default();
        let mut growth = 0;
        let mut start = self.cursor.at();
        while let Some(head) = self.cursor.head(end)? {
            // It is below the end, which is one.
            let len = head.value_len as usize;
            let value = self.cursor.at();
            let place = shape
                .0
                .iter()
                .position(|(number, _)| *number == head.number);
            if let Some(place) = place {
                let role = shape.0[place].1;
                growth += self.field(role, place, start, &head, &mut met, depth)?;
            }
            // A message has been walked to its end.
            self.cursor.skip(value + len - self.cursor.at());
            start = value + len;
        }
        Ok(growth + self.missing(shape, end, &met)?)
    }

    /// One field that means something, from the start of its tag on.
    fn field(
        &mut self,
        role: Role,
        place: usize,
        start: usize,
        head: &Head,
        met: &mut Met,
        depth: Depth,
    ) -> Result<i64, Fault> {
        if head.wire_type != WireType::Len && !matches!(role, Role::Plain) {
            return Err(Fault::Layout(head.number));
        }
        let bit = 1 << place;
        let before = met.any & bit != 0;
        met.any |= bit;
        let filled_before = met.filled & bit != 0;
        if head.value_len == 0 {
            met.filled &= !bit;
        } else {
            met.filled |= bit;
        }
        match role {
            Role::Plain | Role::Either(_) if met.either => return Err(Fault::Twice(head.number)),
            Role::One(_) if before => return Err(Fault::Twice(head.number)),
            Role::Plain | Role::Either(_) => met.either = true,
            _ => {}
        }
        match role {
            Role::Plain => Ok(0),
            Role::Many(shape) | Role::One(shape) | Role::Either(shape) => {
                self.inner(shape, start, head, depth)
            }
            Role::WatchKey if head.value_len == 0 => self.replace(start, head, 0, Put::First),
            Role::Key | Role::WatchKey | Role::Name => self.replace(start, head, 0, Put::Prefix),
            // To some releases of etcd an end that is there and empty is open, not absent, in a read:
            // it must not be there. After one that is not empty it would have to take that along.
            Role::End if head.value_len == 0 && filled_before => Err(Fault::Twice(head.number)),
            Role::End if head.value_len == 0 => self.drop(start, head),
            Role::End if head.value_len == 1 && self.cursor.starts_with(&[0]) => {
                self.replace(start, head, 1, Put::End)
            }
            Role::End => self.replace(start, head, 0, Put::Prefix),
            Role::Strip if !self.is_inside(head) => Err(Fault::Outside),
            Role::Pick if !self.is_key_inside(head) => self.drop(start, head),
            Role::Strip | Role::Pick => {
                let prefix = self.namespace.prefix().len();
                self.replace(start, head, prefix, Put::Len)
            }
        }
    }

    /// What has to be there and was not.
    fn missing(&mut self, shape: &'static Shape, end: usize, met: &Met) -> Result<i64, Fault> {
        let mut growth = 0;
        for (place, (number, role)) in shape.0.iter().enumerate() {
            let bit = 1 << place;
            let met_once = met.any & bit != 0;
            growth += match role {
                Role::Key if met.filled & bit == 0 => return Err(Fault::NoKey),
                Role::Strip if !met_once => return Err(Fault::Outside),
                Role::Name if !met_once => self.insert(end, *number, Put::Prefix)?,
                Role::WatchKey if !met_once => self.insert(end, *number, Put::First)?,
                _ => 0,
            };
        }
        Ok(growth)
    }

    /// A message within the message, whose length may change with what is in it.
    fn inner(
        &mut self,
        shape: &'static Shape,
        start: usize,
        head: &Head,
        depth: Depth,
    ) -> Result<i64, Fault> {
        let depth = depth.enter()?;
        let len = head.value_len as usize;
        let place = self.edits.len();
        self.replace(start, head, 0, Put::Len)?;
        let growth = self.message(shape, self.cursor.at() + len, depth)?;
        if self.edits.len() == place + 1 {
            self.edits.pop();
            return Ok(0);
        }
        let grown = grown(len, growth)?;
        // It is the one that was pushed above.
        let Some(edit) = self.edits.get_mut(place) else {
            return Ok(0);
        };
        edit.len = grown;
        Ok(growth + edit.growth(self.namespace))
    }

    fn is_inside(&self, head: &Head) -> bool {
        let prefix = self.namespace.prefix();
        head.value_len >= prefix.len() as u64 && self.cursor.starts_with(prefix)
    }

    /// The key that is the prefix alone is none that a client inside can name.
    fn is_key_inside(&self, head: &Head) -> bool {
        head.value_len > self.namespace.prefix().len() as u64 && self.is_inside(head)
    }

    /// Another length and `put` instead of the length and the first `cut` bytes of a value.
    fn replace(&mut self, start: usize, head: &Head, cut: usize, put: Put) -> Result<i64, Fault> {
        let text = put.text_len(self.namespace);
        let value = head.value_len as usize;
        self.push(Edit {
            at: (start + head.tag_len) as u32,
            cut: (head.len - head.tag_len + cut) as u32,
            put,
            tag: 0,
            len: grown(value, text as i64 - cut as i64)?,
        })
    }

    /// Without the field.
    fn drop(&mut self, start: usize, head: &Head) -> Result<i64, Fault> {
        self.push(Edit {
            at: start as u32,
            cut: head.len as u32 + head.value_len as u32,
            put: Put::Nothing,
            tag: 0,
            len: 0,
        })
    }

    /// A field more, at the end of its message.
    fn insert(&mut self, end: usize, number: u32, put: Put) -> Result<i64, Fault> {
        let len = grown(0, put.text_len(self.namespace) as i64)?;
        self.push(Edit {
            at: end as u32,
            cut: 0,
            put,
            // The fields that may be missing have numbers below 16.
            tag: (number << 3) as u8 | WireType::Len as u8,
            len,
        })
    }

    fn push(&mut self, edit: Edit) -> Result<i64, Fault> {
        if self.edits.len() >= self.most {
            return Err(Fault::TooMany);
        }
        self.edits.push(edit);
        Ok(edit.growth(self.namespace))
    }
}

/// A length that has grown, or shrunk; every length of a message is below 2^32.
fn grown(len: usize, growth: i64) -> Result<u32, Fault> {
    u32::try_from(len as i64 + growth).map_err(|_| Fault::TooLong)
}
