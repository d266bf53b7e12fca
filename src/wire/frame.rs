//! gRPC message framing: one byte compressed flag, four bytes big-endian length, the payload.
//!
//! Two readers of the same format. [`Scanner`] only follows where messages begin and end, for bytes
//! that are forwarded as they are (P1); [`Reader`] collects whole messages, for methods that are
//! intercepted. Both accept the stream split at any byte, judge a head as soon as it shows a fault,
//! and keep answering with that fault, since nothing after a broken head has a meaning.
//!
//! Left to others: what a fault is told to the client as (P6), decompression, the limits' values.

use std::collections::VecDeque;

use bytes::Bytes;

/// Length of a message's head in bytes: the flag and the length.
pub const HEAD_LEN: usize = 5;

/// Largest first reservation for a message that comes in pieces, in bytes. A head may announce
/// 4 GiB and send nothing more, so room is made as bytes arrive (S1).
const FIRST_RESERVE: usize = 64 * 1024;

/// What is wrong with a stream of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A head announces more bytes than allowed.
    TooLarge {
        /// The announced payload length in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The compressed flag is neither 0 nor 1.
    BadFlag(u8),
    /// The stream ended inside a message.
    Truncated,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge { len, max } => write!(f, "message of {len} bytes, limit is {max}"),
            Self::BadFlag(flag) => write!(f, "compressed flag is {flag}, must be 0 or 1"),
            Self::Truncated => f.write_str("stream ended inside a message"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Follows message boundaries in a byte stream split anywhere, without buffering.
#[derive(Debug)]
pub struct Scanner {
    max: u64,
    head: Head,
    /// Payload bytes still to come of the message whose head is complete.
    left: u32,
    failed: Option<FrameError>,
}

impl Scanner {
    /// A scanner at the start of a stream; `max` is the largest payload allowed, in bytes.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            head: Head::default(),
            left: 0,
            failed: None,
        }
    }

    /// Takes the next bytes of the stream; returns how many messages started in them.
    ///
    /// A message starts with the *last* byte of its head: a head split over several calls is
    /// counted once, by the call that completes it, and a message without payload starts and ends
    /// there.
    ///
    /// # Errors
    /// [`FrameError::BadFlag`] with the head's first byte, [`FrameError::TooLarge`] with its last.
    /// Messages of the same call before the faulty head are not reported. Every later call returns
    /// the same error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<u32, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut rest = bytes;
        let mut started = 0;
        loop {
            let skip = rest.len().min(self.left as usize);
            // No truncation: `skip` is at most `left`, which is a u32.
            self.left -= skip as u32;
            rest = &rest[skip..];
            if rest.is_empty() {
                return Ok(started);
            }
            match self.head.take(&mut rest, self.max) {
                Ok(None) => return Ok(started),
                Ok(Some((_, len))) => {
                    started += 1;
                    self.left = len;
                    self.head = Head::default();
                }
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
    }

    /// True between messages, at the start of the stream included; false after an error.
    pub fn at_boundary(&self) -> bool {
        self.left == 0 && self.head.filled == 0 && self.failed.is_none()
    }

    /// Judges the end of the stream.
    ///
    /// # Errors
    /// The error [`Scanner::feed`] has returned, else [`FrameError::Truncated`] inside a message.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.at_boundary() => Ok(()),
            None => Err(FrameError::Truncated),
        }
    }
}

/// One whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The payload is compressed by the algorithm that `grpc-encoding` names.
    pub compressed: bool,
    /// The payload as sent. It may share, and so keep alive, the chunk it came in.
    pub payload: Bytes,
}

/// Collects whole messages from chunks, without a copy when a payload lies within one chunk.
///
/// After each [`Reader::push`] call [`Reader::next`] until it returns `None`: by then every chunk
/// is let go and only the bytes of the unfinished message are kept, in room of their own. So many
/// tiny chunks neither pin their read buffers nor cost a handle each (S1).
#[derive(Debug)]
pub struct Reader {
    max: u64,
    chunks: VecDeque<Bytes>,
    head: Head,
    /// Compressed flag and length of the message whose head is complete.
    current: Option<(bool, u32)>,
    /// Payload bytes of `current` that came in earlier chunks.
    partial: Vec<u8>,
    failed: Option<FrameError>,
}

impl Reader {
    /// A reader at the start of a stream; `max` is the largest payload allowed, in bytes.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            chunks: VecDeque::new(),
            head: Head::default(),
            current: None,
            partial: Vec::new(),
            failed: None,
        }
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() && self.failed.is_none() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole message, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`FrameError::BadFlag`] with a head's first byte, [`FrameError::TooLarge`] with its last.
    /// What was held is let go, and every later call returns the same error.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None is not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.step();
        if let Err(error) = result {
            self.failed = Some(error);
            self.chunks = VecDeque::new();
        }
        result
    }

    /// Judges the end of the stream. To be called when [`Reader::next`] has returned `None`.
    ///
    /// # Errors
    /// The error [`Reader::next`] has returned, else [`FrameError::Truncated`] when bytes are held.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.buffered() == 0 => Ok(()),
            None => Err(FrameError::Truncated),
        }
    }

    /// Copies what is held in chunks into one of its own: they may keep alive the buffers they came in.
    pub fn settle(&mut self) {
        if self.chunks.is_empty() {
            return;
        }
        let mut own = Vec::with_capacity(self.chunks.iter().map(Bytes::len).sum());
        self.chunks
            .drain(..)
            .for_each(|chunk| own.extend_from_slice(&chunk));
        self.chunks.push_back(own.into());
    }

    /// Bytes held: pushed and not yet returned in a message, heads included.
    pub fn buffered(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(Bytes::len).sum();
        let head = if self.current.is_some() {
            HEAD_LEN
        } else {
            usize::from(self.head.filled)
        };
        chunks + head + self.partial.len()
    }

    fn step(&mut self) -> Result<Option<Message>, FrameError> {
        let Some((compressed, len)) = self.read_head()? else {
            return Ok(None);
        };
        let len = len as usize;
        loop {
            let missing = len - self.partial.len();
            if missing == 0 {
                let payload = Bytes::from(std::mem::take(&mut self.partial));
                self.current = None;
                return Ok(Some(Message {
                    compressed,
                    payload,
                }));
            }
            let Some(front) = self.chunks.front_mut() else {
                return Ok(None);
            };
            if self.partial.is_empty() && front.len() >= missing {
                let payload = front.split_to(missing);
                self.drop_empty_front();
                self.current = None;
                return Ok(Some(Message {
                    compressed,
                    payload,
                }));
            }
            let piece = front.split_to(front.len().min(missing));
            make_room(&mut self.partial, piece.len(), len);
            self.partial.extend_from_slice(&piece);
            self.drop_empty_front();
        }
    }

    /// Completes the head from the chunks.
    fn read_head(&mut self) -> Result<Option<(bool, u32)>, FrameError> {
        while self.current.is_none() {
            let Some(front) = self.chunks.front_mut() else {
                return Ok(None);
            };
            let mut rest = &front[..];
            self.current = self.head.take(&mut rest, self.max)?;
            let used = front.len() - rest.len();
            let _ = front.split_to(used);
            self.drop_empty_front();
            if self.current.is_some() {
                self.head = Head::default();
            }
        }
        Ok(self.current)
    }

    fn drop_empty_front(&mut self) {
        if self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
    }
}

/// A message's head for a payload of `len` bytes.
pub fn head(compressed: bool, len: u32) -> [u8; HEAD_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// Head and payload of an uncompressed message, in one piece.
///
/// # Panics
/// For a payload of 4 GiB or more, which the format cannot say; every message made here is bounded
/// far below by the size limits (S1).
pub fn encode(payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEAD_LEN + payload.len());
    out.extend_from_slice(&head(false, checked_len(payload.len())));
    out.extend_from_slice(payload);
    Bytes::from(out)
}

/// Head and payload of an uncompressed protobuf message, in one piece.
///
/// # Panics
/// As [`encode`].
pub fn encode_message<M: prost::Message>(m: &M) -> Bytes {
    let len = m.encoded_len();
    let mut out = Vec::with_capacity(HEAD_LEN + len);
    out.extend_from_slice(&head(false, checked_len(len)));
    m.encode_raw(&mut out);
    Bytes::from(out)
}

fn checked_len(len: usize) -> u32 {
    // Cannot fail for the proxy's own messages: the size limits are at most 2 GiB.
    u32::try_from(len).expect("a message is shorter than 4 GiB")
}

/// Grows `partial` for `piece` more bytes: by doubling, so that the copying stays linear, but never
/// past the `len` of the message, so that nothing is kept in vain.
fn make_room(partial: &mut Vec<u8>, piece: usize, len: usize) {
    let needed = partial.len() + piece;
    if needed > partial.capacity() {
        let target = needed.max(partial.capacity() * 2).max(FIRST_RESERVE);
        partial.reserve_exact(target.min(len) - partial.len());
    }
}

/// A head as far as it has come.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; HEAD_LEN],
    filled: u8,
}

impl Head {
    /// Moves bytes from the front of `rest` into the head; the flag and length once it is complete.
    /// The caller starts a new head then.
    fn take(&mut self, rest: &mut &[u8], max: u64) -> Result<Option<(bool, u32)>, FrameError> {
        let filled = usize::from(self.filled);
        let n = rest.len().min(HEAD_LEN - filled);
        let (now, later) = rest.split_at(n);
        self.bytes[filled..filled + n].copy_from_slice(now);
        *rest = later;
        // No truncation: at most HEAD_LEN.
        self.filled = (filled + n) as u8;
        if self.filled == 0 {
            return Ok(None);
        }
        let [flag, len @ ..] = self.bytes;
        if flag > 1 {
            return Err(FrameError::BadFlag(flag));
        }
        if usize::from(self.filled) < HEAD_LEN {
            return Ok(None);
        }
        let len = u32::from_be_bytes(len);
        if u64::from(len) > max {
            return Err(FrameError::TooLarge {
                len: u64::from(len),
                max,
            });
        }
        Ok(Some((flag == 1, len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut all = encode(b"hello").to_vec();
        all.extend_from_slice(&encode(b""));
        all.extend_from_slice(&head(true, 3));
        all.extend_from_slice(b"abc");
        all
    }

    #[test]
    fn scanner_counts_each_message_once_at_every_split() {
        let all = stream();
        for cut in 0..=all.len() {
            let mut s = Scanner::new(5);
            let n = s.feed(&all[..cut]).unwrap() + s.feed(&all[cut..]).unwrap();
            assert_eq!((n, s.at_boundary(), s.finish()), (3, true, Ok(())));
        }
        let mut s = Scanner::new(5);
        let counts: Vec<u32> = all.iter().map(|b| s.feed(&[*b]).unwrap()).collect();
        let starts: Vec<usize> = (0..all.len()).filter(|i| counts[*i] == 1).collect();
        assert_eq!(starts, [4, 14, 19]);
    }

    #[test]
    fn a_stream_that_ends_inside_a_message_is_truncated() {
        let all = encode(b"hello");
        for cut in 1..all.len() {
            let mut s = Scanner::new(5);
            s.feed(&all[..cut]).unwrap();
            assert_eq!(s.finish(), Err(FrameError::Truncated), "{cut}");
            let mut r = Reader::new(5);
            r.push(all.slice(..cut));
            assert_eq!(r.next(), Ok(None));
            assert_eq!(r.buffered(), cut);
            assert_eq!(r.finish(), Err(FrameError::Truncated), "{cut}");
        }
    }

    #[test]
    fn faults_show_with_the_byte_that_carries_them_and_stay() {
        let too_large = FrameError::TooLarge { len: 6, max: 5 };
        let mut s = Scanner::new(5);
        assert_eq!(s.feed(&head(false, 6)[..4]), Ok(0));
        assert_eq!(s.feed(&[6]), Err(too_large));
        assert_eq!(s.feed(b""), Err(too_large));
        assert_eq!((s.at_boundary(), s.finish()), (false, Err(too_large)));
        assert_eq!(Scanner::new(5).feed(&[2]), Err(FrameError::BadFlag(2)));

        let mut r = Reader::new(5);
        r.push(Bytes::from_static(b"\0\0\0\0\x01x\x02"));
        assert!(r.next().unwrap().is_some());
        for _ in 0..2 {
            assert_eq!(r.next(), Err(FrameError::BadFlag(2)));
            r.push(Bytes::from_static(b"more"));
        }
        assert_eq!(r.finish(), Err(FrameError::BadFlag(2)));
    }

    #[test]
    fn reader_returns_whole_messages_at_every_split() {
        let all = Bytes::from(stream());
        for cut in 0..=all.len() {
            let mut r = Reader::new(5);
            let mut got = Vec::new();
            for chunk in [all.slice(..cut), all.slice(cut..)] {
                r.push(chunk);
                while let Some(m) = r.next().unwrap() {
                    got.push((m.compressed, m.payload));
                }
            }
            let want: [(bool, &[u8]); 3] = [(false, b"hello"), (false, b""), (true, b"abc")];
            assert!(got.iter().map(|(c, p)| (*c, &p[..])).eq(want), "{cut}");
            assert_eq!((r.buffered(), r.finish()), (0, Ok(())));
        }
    }

    #[test]
    fn a_payload_within_one_chunk_is_not_copied() {
        let payload = Bytes::from_static(b"hello");
        let mut r = Reader::new(5);
        r.push(Bytes::copy_from_slice(&head(false, 5)));
        r.push(payload.clone());
        let got = r.next().unwrap().unwrap().payload;
        assert_eq!(got.as_ptr(), payload.as_ptr());
    }

    #[test]
    fn an_announced_length_reserves_nothing_in_advance() {
        let mut r = Reader::new(u64::MAX);
        r.push(Bytes::copy_from_slice(&head(false, u32::MAX)));
        r.push(Bytes::from_static(b"x"));
        assert_eq!(r.next(), Ok(None));
        assert!(r.partial.capacity() <= FIRST_RESERVE);
        assert!(r.chunks.is_empty());
    }

    #[test]
    fn a_message_in_pieces_keeps_no_spare_room() {
        let mut r = Reader::new(u64::MAX);
        let len = 5 * FIRST_RESERVE + 7;
        let all = encode(&vec![7; len]);
        for i in (0..all.len()).step_by(1000) {
            r.push(all.slice(i..all.len().min(i + 1000)));
            if let Some(m) = r.next().unwrap() {
                assert_eq!(m.payload, all.slice(HEAD_LEN..));
                return;
            }
            assert!(r.partial.capacity() <= len);
        }
        panic!("no message came out");
    }

    #[test]
    fn encode_message_is_head_and_protobuf() {
        assert_eq!(&encode_message(&5u64)[..], b"\0\0\0\0\x02\x08\x05");
    }
}
