//! When to ask etcd how far a stream is, and which request an answer is for (W8).
//!
//! etcd answers progress requests in order, but drops some for good, and an answer does not say
//! whose it is. It is taken for the oldest unanswered request's, so never for one sent later than
//! its own; a request counts as dropped at [`WATCH_PROGRESS_DROPPED`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{
    WATCH_PROBE, WATCH_PROGRESS_DROPPED, WATCH_PROGRESS_FIRST, WATCH_PROGRESS_LONGEST,
};

/// The progress requests of one stream. They are numbered from 1.
#[derive(Debug)]
pub(super) struct Progress {
    /// When the requests that may still be answered were sent, oldest first.
    unanswered: VecDeque<Instant>,
    /// How many requests have been sent.
    sent: u64,
    /// When the last was, at first when the stream began.
    last: Instant,
    /// The next one waits until `pause` after `last`.
    paused: bool,
    pause: Duration,
    /// How long after `last` one is sent though nobody waits: doubles from the first to the longest.
    probe: Duration,
    first_probe: Duration,
    longest_probe: Duration,
}

impl Progress {
    /// Of a stream that begins now, asked about every [`WATCH_PROBE`] when nobody waits.
    pub(super) fn seldom(now: Instant) -> Progress {
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

    /// Of one that is asked as if somebody waited all the time.
    pub(super) fn often(now: Instant) -> Progress {
        Progress {
            probe: WATCH_PROGRESS_FIRST,
            first_probe: WATCH_PROGRESS_FIRST,
            longest_probe: WATCH_PROGRESS_LONGEST,
            ..Progress::seldom(now)
        }
    }

    /// How many requests have been sent: the number of the last.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether a request has no answer yet.
    pub(super) fn awaits(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// When the next request is due, somebody waiting or not. Maybe in the past.
    pub(super) fn due(&self, somebody_waits: bool) -> Instant {
        match somebody_waits {
            true if self.paused => self.last + self.pause,
            true => self.last,
            false => self.last + self.probe,
        }
    }

    /// A request is sent.
    pub(super) fn asked(&mut self, now: Instant) {
        self.forget(now);
        if self.paused {
            self.pause = (self.pause * 2).min(WATCH_PROGRESS_LONGEST);
        }
        self.probe = (self.probe * 2).min(self.longest_probe);
        self.unanswered.push_back(now);
        self.sent += 1;
        self.last = now;
        self.paused = true;
    }

    /// An answer has come: the number of the first request it may be for. `None` when none can be.
    pub(super) fn answered(&mut self, now: Instant) -> Option<u64> {
        self.forget(now);
        let number = self.sent + 1 - self.unanswered.len() as u64;
        self.unanswered.pop_front()?;
        self.pause = WATCH_PROGRESS_FIRST;
        self.paused = false;
        Some(number)
    }

    /// The last answer did not help: the next request waits as if there had been none.
    pub(super) fn hold_off(&mut self) {
        self.paused = true;
    }

    /// Events came: the frontier is on its way, and soon where progress takes over.
    pub(super) fn moving(&mut self) {
        self.probe = self.first_probe;
    }

    fn forget(&mut self, now: Instant) {
        let dropped =
            |asked: &Instant| now.saturating_duration_since(*asked) >= WATCH_PROGRESS_DROPPED;
        while self.unanswered.front().is_some_and(dropped) {
            self.unanswered.pop_front();
        }
    }
}
