//! Queue from the workers to a thread. Workers never block: items beyond its capacity are dropped
//! and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use crate::limits;
use crate::metrics::SharedCounter;

/// Sending side of the queue.
#[derive(Debug, Clone)]
pub(super) struct Queue<T> {
    to: SyncSender<T>,
    dropped: Arc<SharedCounter>,
}

impl<T> Queue<T> {
    pub(super) fn new(to: SyncSender<T>, dropped: Arc<SharedCounter>) -> Queue<T> {
        Queue { to, dropped }
    }

    /// Sends an item, or drops and counts it if the queue is full.
    pub(super) fn send(&self, item: T) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.to.try_send(item) {
            self.dropped.inc();
        }
    }

    /// Sends an item that only wakes the thread. If the queue is full, the thread is awake.
    pub(super) fn wake(&self, item: T) {
        let _ = self.to.try_send(item);
    }
}

/// Limits the rate of log messages about a growing count.
#[derive(Debug)]
pub(super) struct LogThrottle {
    last: Option<Instant>,
    /// Count at the last message.
    reported: u64,
}

impl LogThrottle {
    pub(super) fn new() -> LogThrottle {
        LogThrottle {
            last: None,
            reported: 0,
        }
    }

    /// Returns the growth of `count` since the last message if a message is due.
    pub(super) fn due(&mut self, count: u64) -> Option<u64> {
        let interval = limits::CALL_LOG_WARN_INTERVAL;
        let is_time = self.last.is_none_or(|last| last.elapsed() >= interval);
        if count == self.reported || !is_time {
            return None;
        }
        let new = count - self.reported;
        self.reported = count;
        self.last = Some(Instant::now());
        Some(new)
    }
}

/// Maximum time that the end of the process waits for queued items.
pub(super) const FLUSH_TIME: Duration = limits::CALL_LOG_FLUSH_TIME;

/// Flag that one thread sets and another thread takes.
#[derive(Debug, Default)]
pub(super) struct QueueNotifier(AtomicBool);

impl QueueNotifier {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns whether the flag was set since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Acquire)
    }
}
