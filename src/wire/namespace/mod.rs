//! The namespace: what clients say and hear, translated to what etcd stores under a prefix (N1–N3).
//!
//! Messages are changed as they lie, without decoding them: one walk by the message's shape lists
//! the changes (`walk.rs`, `forms.rs`), and the message is written anew around them, its long parts
//! shared with what arrived (`edits.rs`). Whatever two parsers could read in two ways is refused, so
//! that what leaves for etcd has no key outside the prefix however it is read there.
//!
//! [`Stream`] does it for the framed messages of a call, and [`passage`] says which methods may pass at all.

mod cursor;
mod edits;
mod message_shapes;
mod method_policy;
mod prefix;
mod refusal;
mod stream;
mod translate;
mod walk;

pub use message_shapes::{Answer, Request, forms};
pub use method_policy::{NamespaceAccess, only_asks, passage};
pub use prefix::Namespace;
pub use refusal::{Fault, Refusal};
pub use stream::{Messages, Stream, StreamError};
