//! TLS material from files, for both sides, and its renewal while connections go on (S3).
//!
//! Errors name the flag and the path. Each side has what it uses in one shared pointer: a handshake
//! takes what is there when it begins, without a lock; files that change are looked at by
//! [`reload`], made into something new as a whole, and put there only if they are good.
//!
//! Resumed sessions skip the check of a certificate, so what was trusted once could be trusted for
//! good. New material begins without sessions; and a session that is resumed is checked again.

pub(super) mod certificate;
pub mod client;
mod files;
pub mod generated;
pub mod offer;
pub mod reload;
pub mod server;
mod watch;

pub use files::File;

/// ALPN names, ours in order of preference.
const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";
