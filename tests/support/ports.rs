//! Ports for etcd members, which cannot bind port 0 because they must advertise a known port.
//!
//! The ports are below the range that the kernel uses for outgoing connections, so that a killed
//! member finds its port still free when it restarts. Another process may still bind such a port
//! first: callers that start a server on a port must retry with another.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;

const LOWEST: u16 = 11_000;

/// Returns a port that is free now and that this process has not returned before.
pub fn take() -> u16 {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap_or_else(|poison| poison.into_inner());
    let taken = taken.get_or_insert_with(HashSet::new);
    let end = first_ephemeral();
    loop {
        let port = fastrand::u16(LOWEST..end);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port) {
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
