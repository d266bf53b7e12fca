//! State that several drivers share. No file in this folder uses `WorkerContext`: the drivers are
//! the layer above.

pub mod check_report;
pub(super) mod client_stream;
pub mod connection;
pub mod fleet;
pub mod health;
pub(super) mod identity;
pub(super) mod interrupt;
pub(super) mod message_budget;
pub(super) mod messages;
pub mod namespace;
pub(super) mod permission_cache;
pub mod process;
pub mod read_cache;
pub(super) mod reads;
pub(super) mod reply;
pub(super) mod store_revision;
