//! Parser for the heads of HTTP/2 frames in one direction of a connection, and the encoder of the
//! one frame (GOAWAY with debug data) that the HTTP/2 library cannot send.
//!
//! The parser accepts input split at any byte. The parser does not validate frames; the HTTP/2
//! library does.

/// Length of the client preface, `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, in bytes.
pub const PREFACE_LEN: u32 = 24;
/// Length of a frame's head, in bytes.
pub const HEAD_LEN: usize = 9;

/// Frame type DATA.
pub const DATA: u8 = 0;
/// Frame type HEADERS.
pub const HEADERS: u8 = 1;
/// Frame type RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// Frame type PING.
pub const PING: u8 = 6;
/// Frame type GOAWAY.
pub const GO_AWAY: u8 = 7;
/// Frame type WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;

/// Flag of a PING that is the response to a PING.
const ACK: u8 = 1;

/// The type, flags and length of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Frame type, such as [`DATA`].
    pub kind: u8,
    /// Flags; their meaning depends on the type.
    pub flags: u8,
    /// Payload length in bytes.
    pub len: u32,
}

impl FrameHead {
    /// Returns whether the frame is a PING that requires a response.
    pub fn is_ping_request(self) -> bool {
        self.kind == PING && self.flags & ACK == 0
    }
}

/// Position in a sequence of frames.
#[derive(Debug)]
pub struct HeadScanner {
    /// Bytes to skip: the preface, or the rest of a payload.
    skip: u32,
    head: [u8; HEAD_LEN],
    filled: usize,
}

impl HeadScanner {
    /// Creates a scanner for the bytes that a client sends, from the first byte of the preface on.
    pub fn of_client() -> HeadScanner {
        HeadScanner {
            skip: PREFACE_LEN,
            head: [0; HEAD_LEN],
            filled: 0,
        }
    }

    /// Creates a scanner for the bytes that a server sends, from the first byte on.
    pub fn of_server() -> HeadScanner {
        HeadScanner {
            skip: 0,
            ..HeadScanner::of_client()
        }
    }

    /// Returns the next complete head and removes the bytes up to its end from `bytes`. Returns
    /// `None` after it has removed all bytes.
    #[inline]
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHead> {
        let skipped = bytes.len().min(self.skip as usize);
        // At most `skip`, a u32.
        self.skip -= skipped as u32;
        *bytes = &bytes[skipped..];
        match bytes.split_first_chunk() {
            // The common case: the whole head is in one piece.
            Some((head, rest)) if self.filled == 0 => {
                *bytes = rest;
                Some(self.begin(*head))
            }
            _ if bytes.is_empty() => None,
            _ => self.complete_head(bytes),
        }
    }

    /// Adds a piece of a head that arrives in several pieces.
    #[cold]
    fn complete_head(&mut self, bytes: &mut &[u8]) -> Option<FrameHead> {
        let count = (HEAD_LEN - self.filled).min(bytes.len());
        self.head[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        *bytes = &bytes[count..];
        if self.filled < HEAD_LEN {
            return None;
        }
        self.filled = 0;
        Some(self.begin(self.head))
    }

    fn begin(&mut self, head: [u8; HEAD_LEN]) -> FrameHead {
        let [a, b, c, kind, flags, ..] = head;
        let len = u32::from_be_bytes([0, a, b, c]);
        self.skip = len;
        FrameHead { kind, flags, len }
    }

    /// Returns whether the position is between two frames.
    pub fn at_boundary(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

/// Encodes a GOAWAY frame: the last stream that was processed, the error code, and debug data.
pub fn go_away(last_stream: u32, code: u32, debug_data: &[u8]) -> Vec<u8> {
    // Debug data is a short text; the 24-bit length cannot overflow.
    let len = (8 + debug_data.len()) as u32;
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([GO_AWAY, 0, 0, 0, 0, 0]);
    frame.extend(last_stream.to_be_bytes());
    frame.extend(code.to_be_bytes());
    frame.extend(debug_data);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encodes_goaway() {
        let frame = go_away(5, 11, b"why");
        assert_eq!(frame, b"\0\0\x0b\x07\0\0\0\0\0\0\0\0\x05\0\0\0\x0bwhy");
        let (mut heads, mut bytes) = (HeadScanner::of_server(), &frame[..]);
        let head = heads.next(&mut bytes).unwrap();
        assert_eq!((head.kind, head.len, bytes.len()), (GO_AWAY, 11, 11));
        assert_eq!(heads.next(&mut bytes), None);
        assert!(heads.at_boundary());
    }

    proptest! {
        /// Any split of the bytes yields the same heads and the same boundaries.
        #[test]
        fn accepts_any_split(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..30),
            chunk in 1usize..50,
            of_client: bool,
        ) {
            let mut heads = if of_client { HeadScanner::of_client() } else { HeadScanner::of_server() };
            let mut bytes = vec![b'P'; if of_client { PREFACE_LEN as usize } else { 0 }];
            let mut ends = vec![bytes.len()];
            for (kind, flags, len) in &frames {
                bytes.extend([0, 0, *len as u8, *kind, *flags, 0, 0, 0, 1]);
                bytes.resize(bytes.len() + len, 0xAB);
                ends.push(bytes.len());
            }
            let (mut seen, mut at) = (Vec::new(), 0);
            for mut part in bytes.chunks(chunk) {
                at += part.len();
                while let Some(head) = heads.next(&mut part) {
                    seen.push((head.kind, head.flags, head.len as usize));
                }
                prop_assert_eq!(heads.at_boundary(), ends.contains(&at));
            }
            prop_assert_eq!(seen, frames);
        }
    }
}
