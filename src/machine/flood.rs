//! Follows the frame heads of a client's HTTP/2 byte stream and counts what costs us more than
//! it costs the client: stream resets, and frames that carry no call (S1).
//!
//! The `h2` crate bounds the memory of these, not their rate. This machine sees only lengths,
//! types and order; whether a frame is legal is left to `h2`.
//!
//! Whoever receives much rightly sends many WINDOW_UPDATEs, and a Go client a PING with nearly
//! every answer. So frames that our own output explains are free.

use std::time::Instant;

use super::bucket::Bucket;
use crate::limits;

/// The client preface, `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE_LEN: u32 = 24;
const HEAD_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// Which rate a client went over; its name is a metric's label and a log's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Streams reset.
    Resets,
    /// Frames that carry no call.
    Control,
}

impl Flood {
    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Flood::Resets => "resets",
            Flood::Control => "control_frames",
        }
    }
}

/// The place in one connection's byte stream, and the two buckets.
#[derive(Debug)]
pub struct FloodGuard {
    /// Bytes to pass over: the preface, or the rest of a payload.
    skip: u32,
    head: [u8; HEAD_LEN],
    head_len: usize,
    resets: Bucket,
    control: Bucket,
    /// Bytes sent that no frame has been explained with yet.
    sent: usize,
}

impl FloodGuard {
    /// For a connection whose first byte, the preface's, is still to come.
    pub fn new(now: Instant) -> FloodGuard {
        FloodGuard {
            skip: PREFACE_LEN,
            head: [0; HEAD_LEN],
            head_len: 0,
            resets: Bucket::new(limits::RESET_BURST, limits::RESETS_PER_SECOND, now),
            control: Bucket::new(limits::CONTROL_BURST, limits::CONTROL_PER_SECOND, now),
            sent: 0,
        }
    }

    /// This many bytes were sent to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// Takes the next bytes of the stream, split anywhere.
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        loop {
            let passed = bytes.len().min(self.skip as usize);
            self.skip -= passed as u32;
            bytes = &bytes[passed..];
            if bytes.is_empty() {
                return Ok(());
            }
            let wanted = (HEAD_LEN - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + wanted].copy_from_slice(&bytes[..wanted]);
            self.head_len += wanted;
            bytes = &bytes[wanted..];
            if self.head_len == HEAD_LEN {
                self.head_len = 0;
                self.skip = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
                self.count(self.head[3], &now)?;
            }
        }
    }

    fn count(&mut self, kind: u8, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        match kind {
            HEADERS => Ok(()),
            DATA if self.skip > 0 => Ok(()),
            RST_STREAM if self.resets.take(1, now) => Ok(()),
            RST_STREAM => Err(Flood::Resets),
            PING | WINDOW_UPDATE if self.sent >= limits::BYTES_PER_CONTROL_FRAME => {
                self.sent -= limits::BYTES_PER_CONTROL_FRAME;
                Ok(())
            }
            _ if self.control.take(1, now) => Ok(()),
            _ => Err(Flood::Control),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0, (len >> 8) as u8, len as u8, kind, 0, 0, 0, 0, 1];
        bytes.resize(HEAD_LEN + len, 0xAB);
        bytes
    }

    fn stream(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut bytes = vec![b'P'; PREFACE_LEN as usize];
        frames.into_iter().for_each(|f| bytes.extend(f));
        bytes
    }

    #[test]
    fn resets_beyond_the_burst_are_a_flood() {
        let now = Instant::now();
        let burst = limits::RESET_BURST as usize;
        let allowed = stream((0..burst).map(|_| frame(RST_STREAM, 4)));
        let mut guard = FloodGuard::new(now);
        assert_eq!(guard.feed(&allowed, || now), Ok(()));
        assert_eq!(
            guard.feed(&frame(RST_STREAM, 4), || now),
            Err(Flood::Resets)
        );
    }

    #[test]
    fn calls_and_their_data_are_none() {
        let now = Instant::now();
        let frames = (0..200_000).map(|n| frame(if n % 2 == 0 { HEADERS } else { DATA }, 5));
        assert_eq!(FloodGuard::new(now).feed(&stream(frames), || now), Ok(()));
    }

    #[test]
    fn empty_data_is_one() {
        let now = Instant::now();
        let frames = (0..=limits::CONTROL_BURST).map(|_| frame(DATA, 0));
        assert_eq!(
            FloodGuard::new(now).feed(&stream(frames), || now),
            Err(Flood::Control)
        );
    }

    #[test]
    fn updates_and_pings_for_what_was_sent_are_none() {
        let now = Instant::now();
        let count = 2 * limits::CONTROL_BURST;
        let frames = (0..count).map(|n| frame(if n % 2 == 0 { PING } else { WINDOW_UPDATE }, 4));
        let bytes = stream(frames);
        let mut guard = FloodGuard::new(now);
        guard.sent(count as usize * limits::BYTES_PER_CONTROL_FRAME);
        assert_eq!(guard.feed(&bytes, || now), Ok(()));
        assert_eq!(
            FloodGuard::new(now).feed(&bytes, || now),
            Err(Flood::Control)
        );
    }

    proptest! {
        /// However the bytes are split, the same frames are counted.
        #[test]
        fn splits_change_nothing(
            kinds in prop::collection::vec((0u8..12, 0usize..40), 0..60),
            chunk in 1usize..50,
        ) {
            let now = Instant::now();
            let bytes = stream(kinds.iter().map(|(kind, len)| frame(*kind, *len)));
            let mut split = FloodGuard::new(now);
            bytes.chunks(chunk).for_each(|part| assert_eq!(split.feed(part, || now), Ok(())));
            let control = kinds.iter().filter(|(k, l)| !matches!((k, l), (1 | 3, _) | (0, 1..))).count();
            let mut left = Bucket::new(limits::CONTROL_BURST, limits::CONTROL_PER_SECOND, now);
            left.take(control as u32, || now);
            prop_assert_eq!(format!("{:?}", split.control), format!("{:?}", left));
        }
    }
}
