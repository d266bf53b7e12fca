//! Follows the heads of HTTP/2 frames in one direction of a connection, whose bytes come split
//! anywhere; and the one frame that the HTTP/2 library cannot make. Whether frames are legal is left
//! to that library.

/// The client preface, `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
pub const PREFACE_LEN: u32 = 24;
/// The head of a frame.
pub const HEAD_LEN: usize = 9;

/// The types of frames that matter here.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const PING: u8 = 6;
/// See [`DATA`].
pub const GO_AWAY: u8 = 7;
/// See [`DATA`].
pub const WINDOW_UPDATE: u8 = 8;

/// The flag of a PING that answers one.
const ACK: u8 = 1;

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The frame's type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Bytes that follow the head.
    pub len: u32,
}

impl Head {
    /// A PING that wants an answer.
    pub fn asks(self) -> bool {
        self.kind == PING && self.flags & ACK == 0
    }
}

/// The place in a stream of frames.
#[derive(Debug)]
pub struct Heads {
    /// Bytes to pass over: the preface, or the rest of a payload.
    skip: u32,
    head: [u8; HEAD_LEN],
    filled: usize,
}

impl Heads {
    /// What a client sends, from its first byte, the preface's.
    pub fn of_client() -> Heads {
        Heads {
            skip: PREFACE_LEN,
            head: [0; HEAD_LEN],
            filled: 0,
        }
    }

    /// What a server sends, from its first byte.
    pub fn of_server() -> Heads {
        Heads {
            skip: 0,
            ..Heads::of_client()
        }
    }

    /// The next head that is complete, taking the bytes up to its end; `None` once all are taken.
    #[inline]
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let passed = bytes.len().min(self.skip as usize);
        // At most `skip`, a u32.
        self.skip -= passed as u32;
        *bytes = &bytes[passed..];
        match bytes.split_first_chunk() {
            // Nearly every head comes in one piece.
            Some((head, rest)) if self.filled == 0 => {
                *bytes = rest;
                Some(self.begin(*head))
            }
            _ if bytes.is_empty() => None,
            _ => self.gather(bytes),
        }
    }

    /// A head that comes in pieces.
    #[cold]
    fn gather(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let wanted = (HEAD_LEN - self.filled).min(bytes.len());
        self.head[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
        self.filled += wanted;
        *bytes = &bytes[wanted..];
        if self.filled < HEAD_LEN {
            return None;
        }
        self.filled = 0;
        Some(self.begin(self.head))
    }

    fn begin(&mut self, head: [u8; HEAD_LEN]) -> Head {
        let [a, b, c, kind, flags, ..] = head;
        let len = u32::from_be_bytes([0, a, b, c]);
        self.skip = len;
        Head { kind, flags, len }
    }

    /// Between two frames.
    pub fn at_boundary(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

/// A GOAWAY frame: the last stream that was taken, the error code, and what it tells besides.
pub fn go_away(last_stream: u32, code: u32, why: &[u8]) -> Vec<u8> {
    // A few words: far below what the length has room for.
    let len = (8 + why.len()) as u32;
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([GO_AWAY, 0, 0, 0, 0, 0]);
    frame.extend(last_stream.to_be_bytes());
    frame.extend(code.to_be_bytes());
    frame.extend(why);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_last_frame_is_laid_out_as_http2_has_it() {
        let frame = go_away(5, 11, b"why");
        assert_eq!(frame, b"\0\0\x0b\x07\0\0\0\0\0\0\0\0\x05\0\0\0\x0bwhy");
        let (mut heads, mut bytes) = (Heads::of_server(), &frame[..]);
        let head = heads.next(&mut bytes).unwrap();
        assert_eq!((head.kind, head.len, bytes.len()), (GO_AWAY, 11, 11));
        assert_eq!(heads.next(&mut bytes), None);
        assert!(heads.at_boundary());
    }

    proptest! {
        /// However the bytes are split, the same heads come, and between frames is said to be so.
        #[test]
        fn splits_change_nothing(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..30),
            chunk in 1usize..50,
            of_client: bool,
        ) {
            let mut heads = if of_client { Heads::of_client() } else { Heads::of_server() };
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
