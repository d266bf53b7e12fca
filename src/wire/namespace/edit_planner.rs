//! Walks a message by its schema and lists the edits that the namespace requires (N3).
//!
//! The planner rejects or normalizes everything that two parsers could read in two ways. The
//! planner bounds the nesting depth, and thereby its stack, and copies no bytes.

use bytes::Bytes;

use super::cursor::Cursor;
use super::edits::{Edit, EditList, Replacement};
use super::message_schemas::{FieldRole, MessageSchema};
use super::prefix::Namespace;
use super::translation_error::MessageDefect;
use crate::limits;
use crate::wire::proto::{Depth, FieldHead, WireType};

/// Maximum message depth. Each nested transaction needs two levels, an operation and the
/// transaction. The innermost level adds an operation, its range, and a key of a response.
const DEPTH: Depth = Depth::new(2 * limits::TRANSACTION_DEPTH + 3);

/// Returns the edits of a message with this schema, at most `max_edits` of them.
pub(super) fn plan_edits(
    namespace: &Namespace,
    schema: &'static MessageSchema,
    message: &[Bytes],
    max_edits: usize,
) -> Result<EditList, MessageDefect> {
    let len = message.iter().try_fold(0u32, |len, piece| {
        len.checked_add(u32::try_from(piece.len()).ok()?)
    });
    let len = len.ok_or(MessageDefect::TooLong)? as usize;
    let mut planner = EditPlanner {
        namespace,
        cursor: Cursor::new(message),
        edits: EditList::new(),
        max_edits,
    };
    let growth = planner.message(schema, len, DEPTH)?;
    new_len(len, growth)?;
    Ok(planner.edits)
}

struct EditPlanner<'a> {
    namespace: &'a Namespace,
    cursor: Cursor<'a>,
    edits: EditList,
    max_edits: usize,
}

/// The fields found in a message, as bit sets over positions in its schema.
#[derive(Default)]
struct FoundFields {
    present: u16,
    /// The last occurrence was not empty.
    nonempty: u16,
    /// Whether a member of the oneof was found.
    oneof: bool,
}

impl EditPlanner<'_> {
    /// Plans the rest of a message up to `end`. Returns the change of its length in bytes.
    fn message(
        &mut self,
        schema: &'static MessageSchema,
        end: usize,
        depth: Depth,
    ) -> Result<i64, MessageDefect> {
        let mut found = FoundFields::default();
        let mut growth = 0;
        let mut start = self.cursor.position();
        while let Some(head) = self.cursor.read_head(end)? {
            // No truncation: the cursor has checked that the value ends at or before `end`.
            let len = head.value_len as usize;
            let value = self.cursor.position();
            let index = schema
                .0
                .iter()
                .position(|(number, _)| *number == head.number);
            if let Some(index) = index {
                let role = schema.0[index].1;
                growth += self.field(role, index, start, &head, &mut found, depth)?;
            }
            // For a nested message the cursor is already at the end of the value.
            self.cursor.skip(value + len - self.cursor.position());
            start = value + len;
        }
        Ok(growth + self.absent_fields(schema, end, &found)?)
    }

    /// Plans one field of the schema. `start` is the position of its tag.
    fn field(
        &mut self,
        role: FieldRole,
        index: usize,
        start: usize,
        head: &FieldHead,
        found: &mut FoundFields,
        depth: Depth,
    ) -> Result<i64, MessageDefect> {
        if head.wire_type != WireType::Len && !matches!(role, FieldRole::OneofOther) {
            return Err(MessageDefect::WireType(head.number));
        }
        let bit = 1 << index;
        let present_before = found.present & bit != 0;
        found.present |= bit;
        let nonempty_before = found.nonempty & bit != 0;
        if head.value_len == 0 {
            found.nonempty &= !bit;
        } else {
            found.nonempty |= bit;
        }
        match role {
            FieldRole::OneofOther | FieldRole::OneofMessage(_) if found.oneof => {
                return Err(MessageDefect::Duplicate(head.number));
            }
            FieldRole::Singular(_) if present_before => {
                return Err(MessageDefect::Duplicate(head.number));
            }
            FieldRole::OneofOther | FieldRole::OneofMessage(_) => found.oneof = true,
            _ => {}
        }
        match role {
            FieldRole::OneofOther => Ok(0),
            FieldRole::Repeated(schema)
            | FieldRole::Singular(schema)
            | FieldRole::OneofMessage(schema) => self.nested_message(schema, start, head, depth),
            FieldRole::WatchKey if head.value_len == 0 => {
                self.replace(start, head, 0, Replacement::FirstKey)
            }
            FieldRole::Key | FieldRole::WatchKey | FieldRole::Name => {
                self.replace(start, head, 0, Replacement::Prefix)
            }
            // Some etcd releases read a present and empty end as open-ended, so it is removed.
            // After an end that is not empty, removal would make that earlier end valid again.
            FieldRole::RangeEnd if head.value_len == 0 && nonempty_before => {
                Err(MessageDefect::Duplicate(head.number))
            }
            FieldRole::RangeEnd if head.value_len == 0 => self.remove(start, head),
            FieldRole::RangeEnd if head.value_len == 1 && self.cursor.starts_with(&[0]) => {
                self.replace(start, head, 1, Replacement::End)
            }
            FieldRole::RangeEnd => self.replace(start, head, 0, Replacement::Prefix),
            FieldRole::StoredKey if !self.has_prefix(head) => Err(MessageDefect::OutsideNamespace),
            FieldRole::ListedKey if !self.is_namespace_key(head) => self.remove(start, head),
            FieldRole::StoredKey | FieldRole::ListedKey => {
                let prefix = self.namespace.prefix().len();
                self.replace(start, head, prefix, Replacement::Len)
            }
        }
    }

    /// Handles the required fields that are absent: inserts them or rejects the message.
    fn absent_fields(
        &mut self,
        schema: &'static MessageSchema,
        end: usize,
        found: &FoundFields,
    ) -> Result<i64, MessageDefect> {
        let mut growth = 0;
        for (index, (number, role)) in schema.0.iter().enumerate() {
            let bit = 1 << index;
            let found_once = found.present & bit != 0;
            growth += match role {
                FieldRole::Key if found.nonempty & bit == 0 => {
                    return Err(MessageDefect::MissingKey);
                }
                FieldRole::StoredKey if !found_once => return Err(MessageDefect::OutsideNamespace),
                FieldRole::Name if !found_once => self.insert(end, *number, Replacement::Prefix)?,
                FieldRole::WatchKey if !found_once => {
                    self.insert(end, *number, Replacement::FirstKey)?
                }
                _ => 0,
            };
        }
        Ok(growth)
    }

    /// Plans a nested message. Its length may change with its content.
    fn nested_message(
        &mut self,
        schema: &'static MessageSchema,
        start: usize,
        head: &FieldHead,
        depth: Depth,
    ) -> Result<i64, MessageDefect> {
        let depth = depth.enter()?;
        let len = head.value_len as usize;
        let index = self.edits.len();
        self.replace(start, head, 0, Replacement::Len)?;
        let growth = self.message(schema, self.cursor.position() + len, depth)?;
        if self.edits.len() == index + 1 {
            self.edits.pop();
            return Ok(0);
        }
        let new_len = new_len(len, growth)?;
        // The edit that `replace` pushed above.
        let Some(edit) = self.edits.get_mut(index) else {
            return Ok(0);
        };
        edit.len = new_len;
        Ok(growth + edit.growth(self.namespace))
    }

    fn has_prefix(&self, head: &FieldHead) -> bool {
        let prefix = self.namespace.prefix();
        head.value_len >= prefix.len() as u64 && self.cursor.starts_with(prefix)
    }

    /// Returns whether the value is a key in the namespace. The prefix alone is not: clients cannot
    /// name that key.
    fn is_namespace_key(&self, head: &FieldHead) -> bool {
        head.value_len > self.namespace.prefix().len() as u64 && self.has_prefix(head)
    }

    /// Replaces the length and the first `removed` bytes of a value by another length and
    /// `replacement`.
    fn replace(
        &mut self,
        start: usize,
        head: &FieldHead,
        removed: usize,
        replacement: Replacement,
    ) -> Result<i64, MessageDefect> {
        let inserted = replacement.data_len(self.namespace);
        let value = head.value_len as usize;
        self.push(Edit {
            at: (start + head.tag_len) as u32,
            removed: (head.len - head.tag_len + removed) as u32,
            replacement,
            tag: 0,
            len: new_len(value, inserted as i64 - removed as i64)?,
        })
    }

    /// Removes the field.
    fn remove(&mut self, start: usize, head: &FieldHead) -> Result<i64, MessageDefect> {
        self.push(Edit {
            at: start as u32,
            removed: head.len as u32 + head.value_len as u32,
            replacement: Replacement::Nothing,
            tag: 0,
            len: 0,
        })
    }

    /// Inserts a field at the end of its message.
    fn insert(
        &mut self,
        end: usize,
        number: u32,
        replacement: Replacement,
    ) -> Result<i64, MessageDefect> {
        let len = new_len(0, replacement.data_len(self.namespace) as i64)?;
        self.push(Edit {
            at: end as u32,
            removed: 0,
            replacement,
            // Fields that may be absent have numbers below 16, so the tag is one byte.
            tag: (number << 3) as u8 | WireType::Len as u8,
            len,
        })
    }

    fn push(&mut self, edit: Edit) -> Result<i64, MessageDefect> {
        if self.edits.len() >= self.max_edits {
            return Err(MessageDefect::TooManyEdits);
        }
        self.edits.push(edit);
        Ok(edit.growth(self.namespace))
    }
}

/// Returns a changed length. Every length in a message must be below 2^32.
fn new_len(len: usize, growth: i64) -> Result<u32, MessageDefect> {
    u32::try_from(len as i64 + growth).map_err(|_| MessageDefect::TooLong)
}
