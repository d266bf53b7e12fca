//! Namespace translation: clients use keys without a prefix, and etcd stores them with it (N1–N3).
//! The translation edits the raw bytes of protobuf messages instead of decoding them. Fields that
//! this version does not know survive unchanged, and long values are not copied.
//!
//! How a message is translated:
//! 1. `message_schemas.rs` lists, for each message, the fields that contain keys.
//! 2. `edit_planner.rs` walks the message by its schema, lists the edits, and rejects everything
//!    that two parsers could read in two ways. No parser finds a key outside the prefix in a
//!    message to etcd.
//! 3. `edits.rs` builds the new message: copies the short parts, and shares the long ones with the
//!    received buffers.
//!
//! [`StreamTranslator`] translates the framed messages of a call. [`default_access`] decides which
//! methods a namespace allows.

mod cursor;
mod edit_planner;
mod edits;
mod message_schemas;
mod method_policy;
mod prefix;
mod stream;
mod translate;
mod translation_error;

pub use message_schemas::{RequestType, ResponseType, message_types};
pub use method_policy::{NamespaceAccess, default_access, is_alarm_get};
pub use prefix::Namespace;
pub use stream::{MessageType, StreamTranslationError, StreamTranslator};
pub use translation_error::{MessageDefect, TranslationError};
