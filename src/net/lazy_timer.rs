//! Timer for a deadline that changes with nearly every event, mostly to a later time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Maximum time until the timer fires, so that nearly no call of `set` is to an earlier time.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// A timer that is registered with the runtime again only if it must fire earlier. A later deadline
/// is checked when the timer fires. Without a deadline it fires once a second.
pub(crate) struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
    /// Deadline.
    at: Instant,
}

impl LazyTimer {
    /// Creates a timer that fires in one second.
    pub(crate) fn new() -> LazyTimer {
        let at = Instant::now() + MAX_DELAY;
        LazyTimer {
            sleep: Box::pin(sleep_until(at)),
            at,
        }
    }

    /// Replaces the deadline.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
    }

    /// Ready when the timer fires.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let at = self.at;
            if Instant::now() >= at {
                self.sleep.as_mut().reset(Instant::now() + MAX_DELAY);
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(at);
        }
    }
}
