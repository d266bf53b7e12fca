//! Proxies that find one another: how one registers (N4), and which are registered.

pub mod members;
pub mod registration;
