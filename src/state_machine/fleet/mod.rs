//! Fleet of proxies: registration of this proxy in etcd (N4), and the list of registered proxies.

pub mod members;
pub mod registration;
