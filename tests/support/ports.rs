//! Ports for etcd members, which cannot bind port 0 because they must advertise a known port.
//!
//! Taken from below the range the kernel gives to outgoing connections, so that a member that is
//! killed and started again finds its port still free. Another process may still be quicker:
//! whoever starts a server on such a port tries again with another.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;

const LOWEST: u16 = 11_000;

/// A port that is free now and was not given out before by this process.
pub fn take() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(|poison| poison.into_inner());
    let given = given.get_or_insert_with(HashSet::new);
    let end = first_ephemeral();
    loop {
        let port = fastrand::u16(LOWEST..end);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

fn first_ephemeral() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|first| *first > LOWEST + 1000)
        .unwrap_or(32_768)
}
