//! TLS configurations towards clients and towards etcd, and their reload while connections stay
//! open (S3).
//!
//! Each side has its current configuration behind one shared pointer. A handshake takes the
//! configuration that is current when the handshake begins, without a lock. [`reload`] checks
//! changed files, builds a complete new configuration from them, and replaces the pointer only if
//! the files are valid. Errors name the flag and the path.
//!
//! A resumed session skips the check of the certificate, so a certificate that was trusted once
//! could stay trusted without end. Therefore a new configuration starts without sessions, and the
//! certificate of a resumed session is checked again.

pub(super) mod certificate;
pub mod client;
mod file_watch;
mod files;
pub mod generated;
mod material;
pub mod policy;
pub mod reload;
pub mod server;

pub use files::FlagFile;

/// ALPN protocol name of HTTP/2, which both sides prefer.
const H2: &[u8] = b"h2";
/// ALPN protocol name of HTTP/1.1.
const HTTP_1_1: &[u8] = b"http/1.1";
