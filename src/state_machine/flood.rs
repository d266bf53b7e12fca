//! Follows the frame heads of a client's HTTP/2 byte stream and counts what costs us more than
//! it costs the client: stream resets, and frames that carry no call (S1).
//!
//! The `h2` crate bounds the memory of these, not their rate. This machine sees only lengths,
//! types and order; whether a frame is legal is left to `h2`.
//!
//! Whoever receives much rightly sends many WINDOW_UPDATEs, and a Go client a PING with nearly
//! every answer. So frames that our own output explains are free.

use std::time::Instant;

use super::ping_strikes::Heard;
use super::token_bucket::TokenBucket;
use crate::limits;
use crate::wire::heads::{DATA, HEADERS, Head, Heads, PING, RST_STREAM, WINDOW_UPDATE};

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
    heads: Heads,
    resets: TokenBucket,
    control: TokenBucket,
    /// Bytes sent that no frame has been explained with yet.
    sent: usize,
    pings: Option<Pings>,
}

/// Pings, and what is sent between them.
#[derive(Debug)]
struct Pings {
    ours: Heads,
    /// Something of a call was sent since the last ping.
    answered: bool,
    heard: Heard,
}

impl FloodGuard {
    /// For a connection whose first byte, the preface's, is still to come.
    pub fn new(now: Instant) -> FloodGuard {
        FloodGuard {
            heads: Heads::of_client(),
            resets: TokenBucket::new(limits::RESET_BURST, limits::RESETS_PER_SECOND, now),
            control: TokenBucket::new(limits::CONTROL_BURST, limits::CONTROL_PER_SECOND, now),
            sent: 0,
            pings: None,
        }
    }

    /// Pings are to be heard of one by one, too.
    pub fn hearing_pings(mut self) -> FloodGuard {
        self.pings = Some(Pings {
            ours: Heads::of_server(),
            answered: false,
            heard: Heard::default(),
        });
        self
    }

    /// The pings since the last time, if there were any.
    pub fn take_pings(&mut self) -> Option<Heard> {
        self.pings.as_mut()?.heard.take()
    }

    /// Whether what was sent so far is known to be whole frames.
    pub fn is_between_frames(&self) -> bool {
        let ours = self.pings.as_ref().map(|pings| &pings.ours);
        ours.is_some_and(Heads::at_boundary)
    }

    /// These bytes were sent to the client.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        self.sent = self.sent.saturating_add(bytes.len());
        if let Some(pings) = &mut self.pings {
            while let Some(head) = pings.ours.next(&mut bytes) {
                pings.answered |= matches!(head.kind, HEADERS | DATA);
            }
        }
    }

    /// Takes the next bytes of the stream, split anywhere.
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        while let Some(head) = self.heads.next(&mut bytes) {
            self.count(head, &now)?;
        }
        Ok(())
    }

    fn count(&mut self, head: Head, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        if head.asks()
            && let Some(pings) = &mut self.pings
        {
            pings.heard.ping(std::mem::take(&mut pings.answered));
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
        guard.sent(&vec![0; count as usize * limits::BYTES_PER_CONTROL_FRAME]);
        assert_eq!(guard.feed(&bytes, || now), Ok(()));
        assert_eq!(
            FloodGuard::new(now).feed(&bytes, || now),
            Err(Flood::Control)
        );
    }

    #[test]
    fn what_is_sent_of_a_call_forgives_pings_and_nothing_else_does() {
        let now = Instant::now();
        let heard = |sent: &[Vec<u8>]| {
            let mut guard = FloodGuard::new(now).hearing_pings();
            // The preface and two pings, then what was sent, then one more.
            let first = stream([frame(PING, 8), frame(PING, 8)]);
            guard.feed(&first, || now).unwrap();
            // Byte by byte: frames are followed however they are written.
            sent.concat().chunks(1).for_each(|byte| guard.sent(byte));
            guard.feed(&frame(PING, 8), || now).unwrap();
            let heard = guard.take_pings().unwrap();
            assert_eq!(guard.take_pings(), None);
            heard
        };
        let pings = |answered: &[bool]| {
            let mut pings = Heard::default();
            answered.iter().for_each(|each| pings.ping(*each));
            pings
        };
        let plain = pings(&[false; 3]);
        assert_eq!(heard(&[]), plain);
        for kind in [PING, WINDOW_UPDATE, RST_STREAM, 4] {
            assert_eq!(heard(&[frame(kind, 8), frame(kind, 0)]), plain, "{kind}");
        }
        for kind in [HEADERS, DATA] {
            let forgiven = pings(&[false, false, true]);
            assert_eq!(heard(&[frame(4, 6), frame(kind, 5)]), forgiven);
        }
        // An answer to a ping of ours is no ping.
        let mut guard = FloodGuard::new(now).hearing_pings();
        let mut answer = frame(PING, 8);
        answer[4] = 1;
        guard.feed(&stream([answer]), || now).unwrap();
        assert_eq!(guard.take_pings(), None);
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
            let mut left = TokenBucket::new(limits::CONTROL_BURST, limits::CONTROL_PER_SECOND, now);
            left.take(control as u32, || now);
            prop_assert_eq!(format!("{:?}", split.control), format!("{:?}", left));
        }
    }
}
