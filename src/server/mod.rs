//! Clients: accepting them, finding out what they speak, and handing each call to its service.
//! Knows nothing of flags.

pub mod accept;
pub mod admin;
mod client_keepalive;
mod handshake_timeout;
pub mod http1;
pub mod http2;
mod listener_kind;
pub mod metrics_export;
pub mod worker;

mod connection;

pub use listener_kind::ListenerKind;
