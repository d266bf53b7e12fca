//! Client side of the proxy: accepts connections, detects their protocol, and passes each call to
//! the driver. Does not depend on command-line flags.

pub mod accept;
pub mod admin;
mod client_keepalive;
mod handshake_timeout;
pub mod http1;
pub mod http2;
pub mod listener;
mod listener_kind;
pub mod metrics_export;
mod socket_file;
mod unread_body;
pub mod worker;

mod connection;

pub use listener_kind::ListenerKind;
