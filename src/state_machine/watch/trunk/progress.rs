//! Schedule of progress requests on one stream, and matching of their responses (W8).
//!
//! etcd answers progress requests in order but drops some of them, and a response does not name its
//! request. A response is attributed to the oldest unanswered request, so never to a request sent
//! after the one it answers. A request counts as dropped after [`WATCH_PROGRESS_DROPPED`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{
    WATCH_PROBE, WATCH_PROGRESS_DROPPED, WATCH_PROGRESS_FIRST, WATCH_PROGRESS_LONGEST,
};

/// The progress requests of one stream, numbered from 1.
#[derive(Debug)]
pub(super) struct Progress {
    /// Send times of the requests that may still be answered, oldest first.
    unanswered: VecDeque<Instant>,
    /// Number of requests sent.
    sent: u64,
    /// Send time of the last request. At first the start of the stream.
    last: Instant,
    /// The next request waits until `pause` after `last`.
    paused: bool,
    pause: Duration,
    /// Time from `last` to the next request if no barrier is pending: doubles from `first_probe` to
    /// `longest_probe`.
    probe: Duration,
    first_probe: Duration,
    longest_probe: Duration,
}

impl Progress {
    /// Creates the schedule of a shared trunk: a request per [`WATCH_PROBE`] without barriers.
    pub(super) fn for_shared(now: Instant) -> Progress {
        Progress {
            unanswered: VecDeque::new(),
            sent: 0,
            last: now,
            paused: false,
            pause: WATCH_PROGRESS_FIRST,
            probe: WATCH_PROBE,
            first_probe: WATCH_PROBE,
            longest_probe: WATCH_PROBE,
        }
    }

    /// Creates the schedule of a catch-up: requests are as frequent as with a pending barrier.
    pub(super) fn for_catch_up(now: Instant) -> Progress {
        Progress {
            probe: WATCH_PROGRESS_FIRST,
            first_probe: WATCH_PROGRESS_FIRST,
            longest_probe: WATCH_PROGRESS_LONGEST,
            ..Progress::for_shared(now)
        }
    }

    /// Returns the number of requests sent, which is the number of the last one.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns whether a request is unanswered.
    pub(super) fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Returns when the next request is due, with or without a pending barrier. The time may be in
    /// the past.
    pub(super) fn due(&self, has_waiters: bool) -> Instant {
        match has_waiters {
            true if self.paused => self.last + self.pause,
            true => self.last,
            false => self.last + self.probe,
        }
    }

    /// Records that a request is sent.
    pub(super) fn request_sent(&mut self, now: Instant) {
        self.remove_dropped(now);
        if self.paused {
            self.pause = (self.pause * 2).min(WATCH_PROGRESS_LONGEST);
        }
        self.probe = (self.probe * 2).min(self.longest_probe);
        self.unanswered.push_back(now);
        self.sent += 1;
        self.last = now;
        self.paused = true;
    }

    /// Records a response. Returns the number of the first request it may answer, or `None` if no
    /// request is unanswered.
    pub(super) fn response_received(&mut self, now: Instant) -> Option<u64> {
        self.remove_dropped(now);
        let number = self.sent + 1 - self.unanswered.len() as u64;
        self.unanswered.pop_front()?;
        self.pause = WATCH_PROGRESS_FIRST;
        self.paused = false;
        Some(number)
    }

    /// Delays the next request as if there had been no response, because the last response did not
    /// answer every barrier.
    pub(super) fn back_off(&mut self) {
        self.paused = true;
    }

    /// Records that events arrived. The frontier advances, and progress requests are useful soon.
    pub(super) fn events_received(&mut self) {
        self.probe = self.first_probe;
    }

    fn remove_dropped(&mut self, now: Instant) {
        let dropped =
            |sent: &Instant| now.saturating_duration_since(*sent) >= WATCH_PROGRESS_DROPPED;
        while self.unanswered.front().is_some_and(dropped) {
            self.unanswered.pop_front();
        }
    }
}
