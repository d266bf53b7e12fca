//! Flood guard: counts the frames of a client connection that cost the proxy more than the client
//! (S1): stream resets, and frames that carry no call.
//!
//! The `h2` crate bounds the memory of such frames, not their rate. The guard sees only lengths,
//! types and order of frames; `h2` decides whether a frame is legal.
//!
//! A client that receives much data sends many WINDOW_UPDATEs, and a Go client sends a PING with
//! nearly every response. So frames that the proxy's own output explains are free.

use std::time::Instant;

use super::ping_strikes::ReceivedPings;
use super::token_bucket::TokenBucket;
use crate::limits;
use crate::wire::heads::{DATA, FrameHead, HEADERS, HeadScanner, PING, RST_STREAM, WINDOW_UPDATE};

/// Rate that a client exceeded. Its name is a metric label and a log field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Stream resets.
    Resets,
    /// Frames that carry no call.
    Control,
}

impl Flood {
    /// Returns the name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Flood::Resets => "resets",
            Flood::Control => "control_frames",
        }
    }
}

/// Position in the byte stream of one connection, and its two token buckets.
#[derive(Debug)]
pub struct FloodGuard {
    heads: HeadScanner,
    resets: TokenBucket,
    control: TokenBucket,
    /// Bytes sent that do not explain a received frame yet.
    sent: usize,
    pings: Option<Pings>,
}

/// Received pings, and what was sent between them.
#[derive(Debug)]
struct Pings {
    ours: HeadScanner,
    /// Headers or data of a call were sent since the last ping.
    answered: bool,
    received: ReceivedPings,
}

impl FloodGuard {
    /// Creates a guard for a connection before its first byte, which starts the HTTP/2 preface.
    pub fn new(now: Instant) -> FloodGuard {
        FloodGuard {
            heads: HeadScanner::of_client(),
            resets: TokenBucket::new(limits::RESET_BURST, limits::RESETS_PER_SECOND, now),
            control: TokenBucket::new(limits::CONTROL_BURST, limits::CONTROL_PER_SECOND, now),
            sent: 0,
            pings: None,
        }
    }

    /// Counts pings as well, for [`FloodGuard::take_pings`].
    pub fn hearing_pings(mut self) -> FloodGuard {
        self.pings = Some(Pings {
            ours: HeadScanner::of_server(),
            answered: false,
            received: ReceivedPings::default(),
        });
        self
    }

    /// Returns the pings since the last call, if any.
    pub fn take_pings(&mut self) -> Option<ReceivedPings> {
        self.pings.as_mut()?.received.take()
    }

    /// Returns whether the bytes sent so far are known to end at a frame boundary.
    pub fn is_between_frames(&self) -> bool {
        let ours = self.pings.as_ref().map(|pings| &pings.ours);
        ours.is_some_and(HeadScanner::at_boundary)
    }

    /// Records bytes that were sent to the client.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        self.sent = self.sent.saturating_add(bytes.len());
        if let Some(pings) = &mut self.pings {
            while let Some(head) = pings.ours.next(&mut bytes) {
                pings.answered |= matches!(head.kind, HEADERS | DATA);
            }
        }
    }

    /// Processes the next bytes of the stream, split at any position.
    ///
    /// # Errors
    /// The rate that the client exceeded.
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        while let Some(head) = self.heads.next(&mut bytes) {
            self.count(head, &now)?;
        }
        Ok(())
    }

    fn count(&mut self, head: FrameHead, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        if head.is_ping_request()
            && let Some(pings) = &mut self.pings
        {
            pings.received.record(std::mem::take(&mut pings.answered));
        }
        match head.kind {
            HEADERS => Ok(()),
            DATA if head.len > 0 => Ok(()),
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
    use crate::wire::heads::{HEAD_LEN, PREFACE_LEN};
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
    fn calls_and_their_data_are_no_flood() {
        let now = Instant::now();
        let frames = (0..200_000).map(|n| frame(if n % 2 == 0 { HEADERS } else { DATA }, 5));
        assert_eq!(FloodGuard::new(now).feed(&stream(frames), || now), Ok(()));
    }

    #[test]
    fn empty_data_frames_are_a_flood() {
        let now = Instant::now();
        let frames = (0..=limits::CONTROL_BURST).map(|_| frame(DATA, 0));
        assert_eq!(
            FloodGuard::new(now).feed(&stream(frames), || now),
            Err(Flood::Control)
        );
    }

    #[test]
    fn updates_and_pings_explained_by_sent_bytes_are_free() {
        let now = Instant::now();
        let count = 2 * limits::CONTROL_BURST;
        let frames = (0..count).map(|n| frame(if n % 2 == 0 { PING } else { WINDOW_UPDATE }, 4));
        let bytes = stream(frames);
        let mut guard = FloodGuard::new(now);
        guard.sent(&vec![0; count as usize * limits::BYTES_PER_CONTROL_FRAME]);
        assert_eq!(guard.feed(&bytes, || now), Ok(()));
        assert_eq!(
            FloodGuard::new(now).feed(&bytes, || now),
            Err(Flood::Control)
        );
    }

    #[test]
    fn only_frames_of_a_call_forgive_pings() {
        let now = Instant::now();
        let received = |sent: &[Vec<u8>]| {
            let mut guard = FloodGuard::new(now).hearing_pings();
            // The preface and two pings, then the sent frames, then one more ping.
            let first = stream([frame(PING, 8), frame(PING, 8)]);
            guard.feed(&first, || now).unwrap();
            // Byte by byte: the guard follows frames however they are split.
            sent.concat().chunks(1).for_each(|byte| guard.sent(byte));
            guard.feed(&frame(PING, 8), || now).unwrap();
            let received = guard.take_pings().unwrap();
            assert_eq!(guard.take_pings(), None);
            received
        };
        let pings = |answered: &[bool]| {
            let mut pings = ReceivedPings::default();
            answered.iter().for_each(|each| pings.record(*each));
            pings
        };
        let plain = pings(&[false; 3]);
        assert_eq!(received(&[]), plain);
        for kind in [PING, WINDOW_UPDATE, RST_STREAM, 4] {
            assert_eq!(received(&[frame(kind, 8), frame(kind, 0)]), plain, "{kind}");
        }
        for kind in [HEADERS, DATA] {
            let forgiven = pings(&[false, false, true]);
            assert_eq!(received(&[frame(4, 6), frame(kind, 5)]), forgiven);
        }
        // The response to a ping of the proxy is not a ping.
        let mut guard = FloodGuard::new(now).hearing_pings();
        let mut answer = frame(PING, 8);
        answer[4] = 1;
        guard.feed(&stream([answer]), || now).unwrap();
        assert_eq!(guard.take_pings(), None);
    }

    proptest! {
        /// The counts do not depend on how the bytes are split.
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
            let mut left = TokenBucket::new(limits::CONTROL_BURST, limits::CONTROL_PER_SECOND, now);
            left.take(control as u32, || now);
            prop_assert_eq!(format!("{:?}", split.control), format!("{:?}", left));
        }
    }
}
