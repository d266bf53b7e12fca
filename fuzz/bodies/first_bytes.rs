//! Fuzz body for protocol detection. The result equals a plain comparison with the HTTP/2 preface,
//! and more bytes never change it.

use etcd_edge::net::sniff::{Protocol, SNIFF_BYTES, sniff};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Uses the whole input as the first bytes of a connection.
pub(crate) fn run(data: &[u8]) {
    let mut decided: Option<Protocol> = None;
    for end in 0..=data.len() {
        let result = sniff(&data[..end]);
        assert_eq!(result, expected(&data[..end]), "{end} bytes");
        if decided.is_some() {
            assert_eq!(result, decided, "byte {end} changed the result");
        }
        decided = result;
    }
    if data.len() >= SNIFF_BYTES {
        assert!(decided.is_some(), "enough bytes and no result");
    }
}

fn expected(first: &[u8]) -> Option<Protocol> {
    let head = &PREFACE[..SNIFF_BYTES];
    if first.starts_with(head) {
        Some(Protocol::Http2)
    } else if head.starts_with(first) {
        None
    } else {
        Some(Protocol::Http1)
    }
}
