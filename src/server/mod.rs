//! Clients: accepting them, finding out what they speak, and handing each call to its service.
//! Knows nothing of flags.

pub mod accept;
mod families;
pub mod http1;
pub mod http2;
pub mod pages;
pub mod worker;

mod connection;
mod idle;
mod opening;
