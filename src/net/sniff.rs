//! Distinguishes HTTP/2 with prior knowledge from HTTP/1.1 by the first bytes of a plain
//! connection.

/// The HTTP/2 client preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Number of bytes that decide the protocol: no HTTP/1.1 request begins with `PRI * HTTP/2`.
pub const SNIFF_BYTES: usize = 12;

/// Protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, for gRPC and pages.
    Http2,
    /// HTTP/1.1, for pages.
    Http1,
}

/// Returns the protocol that the first bytes show. `None`: both are still possible.
pub fn sniff(first: &[u8]) -> Option<Protocol> {
    let seen = first.len().min(SNIFF_BYTES);
    if first[..seen] != PREFACE[..seen] {
        Some(Protocol::Http1)
    } else if seen == SNIFF_BYTES {
        Some(Protocol::Http2)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preface_and_requests() {
        assert_eq!(sniff(PREFACE), Some(Protocol::Http2));
        assert_eq!(sniff(b"GET /health HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(sniff(b"PRIVATE / HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(sniff(b"\x16\x03\x01"), Some(Protocol::Http1));
    }

    #[test]
    fn undecided_only_while_the_preface_is_incomplete() {
        for cut in 0..PREFACE.len() {
            let expected = (cut >= SNIFF_BYTES).then_some(Protocol::Http2);
            assert_eq!(sniff(&PREFACE[..cut]), expected);
        }
    }
}
