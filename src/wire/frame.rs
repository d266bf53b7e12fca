//! gRPC message framing: one byte compressed flag, four bytes big-endian length, then the payload.
//!
//! Two readers of the format. [`Scanner`] only tracks message boundaries, for bytes that are
//! forwarded unchanged (P1). [`Reader`] assembles whole messages, for intercepted methods. Both
//! accept input split at any byte and reject a head as soon as its bytes are invalid. After that
//! they return the same error again, since the bytes after a broken head have no meaning.
//!
//! Not here: the status that an error becomes (P6), decompression (`compression`), and the values
//! of the limits.

use std::collections::VecDeque;

use bytes::Bytes;

/// Length of a message's head in bytes: flag and length.
pub const HEAD_LEN: usize = 5;

/// Maximum first allocation for a message that arrives in pieces, in bytes. A head may announce 4
/// GiB without sending them, so the buffer grows as bytes arrive (S1).
const FIRST_RESERVE: usize = 64 * 1024;

/// Error for a malformed stream of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A head announces more bytes than the limit.
    TooLarge {
        /// Announced payload length in bytes.
        len: u64,
        /// Limit in bytes.
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

/// Tracks message boundaries in a byte stream, without buffering.
#[derive(Debug)]
pub struct Scanner {
    max: u64,
    head: Head,
    /// Missing payload bytes of the message with a complete head.
    missing: u32,
    failed: Option<FrameError>,
}

impl Scanner {
    /// Creates a scanner for the start of a stream. `max` is the payload limit in bytes.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            head: Head::default(),
            missing: 0,
            failed: None,
        }
    }

    /// Processes the next bytes of the stream and returns the number of messages that started in
    /// them.
    ///
    /// A message starts with the *last* byte of its head. If a head is split over several calls,
    /// the call that completes it counts the message. A message without payload starts and ends at
    /// that byte.
    ///
    /// # Errors
    /// [`FrameError::BadFlag`] at the first byte of a head, [`FrameError::TooLarge`] at its last.
    /// The call does not report messages before the invalid head. Every later call returns the same
    /// error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<u32, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut rest = bytes;
        let mut started = 0;
        loop {
            let skip = rest.len().min(self.missing as usize);
            // No truncation: `skip` is at most `left`, a u32.
            self.missing -= skip as u32;
            rest = &rest[skip..];
            if rest.is_empty() {
                return Ok(started);
            }
            match self.head.take(&mut rest, self.max) {
                Ok(None) => return Ok(started),
                Ok(Some((_, len))) => {
                    started += 1;
                    self.missing = len;
                    self.head = Head::default();
                }
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
    }

    /// Returns whether the position is between messages or at the start. False after an error.
    pub fn at_boundary(&self) -> bool {
        self.missing == 0 && self.head.filled == 0 && self.failed.is_none()
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// The error that [`Scanner::feed`] returned, else [`FrameError::Truncated`] inside a message.
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
    /// Whether the payload is compressed with the algorithm in `grpc-encoding`.
    pub compressed: bool,
    /// The payload as sent, which may share memory with the chunk that contained it.
    pub payload: Bytes,
}

/// Assembles whole messages from chunks. A payload within one chunk is not copied.
///
/// Call [`Reader::next`] after each [`Reader::push`] until it returns `None`. The reader has then
/// released every chunk, and its own buffer contains the bytes of the unfinished message. So many
/// tiny chunks neither pin their read buffers nor cost a handle each (S1).
#[derive(Debug)]
pub struct Reader {
    max: u64,
    chunks: VecDeque<Bytes>,
    head: Head,
    /// Compressed flag and length of the message with a complete head.
    current: Option<(bool, u32)>,
    /// Payload bytes of `current` from earlier chunks.
    partial: Vec<u8>,
    failed: Option<FrameError>,
}

impl Reader {
    /// Creates a reader for the start of a stream. `max` is the payload limit in bytes.
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

    /// Returns the next whole message, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::BadFlag`] at the first byte of a head, [`FrameError::TooLarge`] at its last.
    /// The reader then drops its chunks, and every later call returns the same error.
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

    /// Checks that the stream may end here. Call it after [`Reader::next`] has returned `None`.
    ///
    /// # Errors
    /// The error that [`Reader::next`] returned, else [`FrameError::Truncated`] if bytes are
    /// buffered.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.buffered() == 0 => Ok(()),
            None => Err(FrameError::Truncated),
        }
    }

    /// Copies the buffered chunks into one new chunk, so that they no longer pin their read
    /// buffers.
    pub fn compact(&mut self) {
        if self.chunks.is_empty() {
            return;
        }
        let mut own = Vec::with_capacity(self.chunks.iter().map(Bytes::len).sum());
        self.chunks
            .drain(..)
            .for_each(|chunk| own.extend_from_slice(&chunk));
        self.chunks.push_back(own.into());
    }

    /// Returns the bytes that were pushed and not yet returned in a message, heads included.
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
            reserve_partial(&mut self.partial, piece.len(), len);
            self.partial.extend_from_slice(&piece);
            self.drop_empty_front();
        }
    }

    /// Reads from the chunks until the head is complete or no chunk is left.
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

/// Encodes the head of a message with a payload of `len` bytes.
pub fn head(compressed: bool, len: u32) -> [u8; HEAD_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// Encodes an uncompressed message, head and payload in one buffer.
///
/// # Panics
/// If the payload has 4 GiB or more, which the format cannot express. The size limits keep every
/// message of the proxy far below (S1).
pub fn encode(payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEAD_LEN + payload.len());
    out.extend_from_slice(&head(false, checked_len(payload.len())));
    out.extend_from_slice(payload);
    Bytes::from(out)
}

/// Encodes an uncompressed protobuf message, head and payload in one buffer.
///
/// # Panics
/// Like [`encode`].
pub fn encode_message<M: prost::Message>(m: &M) -> Bytes {
    let len = m.encoded_len();
    let mut out = Vec::with_capacity(HEAD_LEN + len);
    out.extend_from_slice(&head(false, checked_len(len)));
    m.encode_raw(&mut out);
    Bytes::from(out)
}

fn checked_len(len: usize) -> u32 {
    // Cannot fail for messages of the proxy: the size limits are at most 2 GiB.
    u32::try_from(len).expect("messages are shorter than 4 GiB")
}

/// Grows `partial` for `piece` more bytes. The capacity doubles, so that copying costs linear time,
/// but never exceeds `len`, the length of the message.
fn reserve_partial(partial: &mut Vec<u8>, piece: usize, len: usize) {
    let needed = partial.len() + piece;
    if needed > partial.capacity() {
        let target = needed.max(partial.capacity() * 2).max(FIRST_RESERVE);
        partial.reserve_exact(target.min(len) - partial.len());
    }
}

/// A possibly incomplete head.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; HEAD_LEN],
    filled: u8,
}

impl Head {
    /// Moves bytes from the start of `rest` into the head. Returns the flag and the length when the
    /// head is complete; the caller then starts a new head.
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
    fn errors_appear_at_the_invalid_byte_and_persist() {
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
    fn an_announced_length_does_not_allocate() {
        let mut r = Reader::new(u64::MAX);
        r.push(Bytes::copy_from_slice(&head(false, u32::MAX)));
        r.push(Bytes::from_static(b"x"));
        assert_eq!(r.next(), Ok(None));
        assert!(r.partial.capacity() <= FIRST_RESERVE);
        assert!(r.chunks.is_empty());
    }

    #[test]
    fn a_message_in_pieces_has_no_spare_capacity() {
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
        panic!("no message returned");
    }

    #[test]
    fn encode_message_is_head_and_protobuf() {
        assert_eq!(&encode_message(&5u64)[..], b"\0\0\0\0\x02\x08\x05");
    }
}
