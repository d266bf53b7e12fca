//! First bytes: the answer is the preface's own comparison, and more bytes never change it.

use etcd_edge::net::sniff::{ENOUGH, Protocol, sniff};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The whole input is what a connection begins with.
pub(crate) fn run(data: &[u8]) {
    let mut decided: Option<Protocol> = None;
    for end in 0..=data.len() {
        let answer = sniff(&data[..end]);
        assert_eq!(answer, naive(&data[..end]), "{end} bytes");
        if decided.is_some() {
            assert_eq!(answer, decided, "byte {end} changed the answer");
        }
        decided = answer;
    }
    if data.len() >= ENOUGH {
        assert!(decided.is_some(), "enough bytes and no answer");
    }
}

fn naive(first: &[u8]) -> Option<Protocol> {
    let head = &PREFACE[..ENOUGH];
    if first.starts_with(head) {
        Some(Protocol::Http2)
    } else if head.starts_with(first) {
        None
    } else {
        Some(Protocol::Http1)
    }
}
