//! A queue out of the workers that never blocks them: what does not fit is counted and lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use crate::limits;
use crate::metrics::SharedCounter;

/// The end that workers have.
#[derive(Debug, Clone)]
pub(super) struct Queue<T> {
    to: SyncSender<T>,
    dropped: Arc<SharedCounter>,
}

impl<T> Queue<T> {
    pub(super) fn new(to: SyncSender<T>, dropped: Arc<SharedCounter>) -> Queue<T> {
        Queue { to, dropped }
    }

    /// Sends it, or counts it as lost.
    pub(super) fn send(&self, item: T) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.to.try_send(item) {
            self.dropped.inc();
        }
    }

    /// Sends what only wakes the other end; one that has no room for it is awake.
    pub(super) fn nudge(&self, item: T) {
        let _ = self.to.try_send(item);
    }
}

/// Says now and then that something goes wrong, not each time.
#[derive(Debug)]
pub(super) struct LogThrottle {
    last: Option<Instant>,
    /// What was told the last time.
    told: u64,
}

impl LogThrottle {
    pub(super) fn new() -> LogThrottle {
        LogThrottle {
            last: None,
            told: 0,
        }
    }

    /// How many more than were told of, when it is time to tell of them.
    pub(super) fn due(&mut self, count: u64) -> Option<u64> {
        let pause = limits::CALL_LOG_WARN_INTERVAL;
        let is_time = self.last.is_none_or(|last| last.elapsed() >= pause);
        if count == self.told || !is_time {
            return None;
        }
        let more = count - self.told;
        self.told = count;
        self.last = Some(Instant::now());
        Some(more)
    }
}

/// How long an end of the process waits for what is queued.
pub(super) const FLUSH: Duration = limits::CALL_LOG_FLUSH_TIME;

/// A flag that one thread raises and another takes.
#[derive(Debug, Default)]
pub(super) struct QueueNotifier(AtomicBool);

impl QueueNotifier {
    pub(super) fn ring(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was rung since the last time.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Acquire)
    }
}
