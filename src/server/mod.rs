//! Clients: accepting them, finding out what they speak, and handing each call to its service.
//! Knows nothing of flags.

pub mod accept;
pub mod families;
pub mod http1;
pub mod http2;
pub mod pages;
pub mod worker;

mod connection;
mod door;
mod idle;
mod opening;
mod page;
mod people;
mod profiles;

pub use door::Door;
