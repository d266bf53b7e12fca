//! A timer that is set anew with nearly everything that happens, mostly to a later time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// It rings at least as often: so that nearly no setting is to an earlier time.
const AT_LATEST: Duration = Duration::from_secs(1);

/// One timer, registered anew only when it must be earlier: a later one looks again when it fires.
/// Rings once a second where it is not set.
pub(crate) struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
    /// When it is wanted.
    at: Instant,
}

impl LazyTimer {
    /// Rings in a second.
    pub(crate) fn new() -> LazyTimer {
        let at = Instant::now() + AT_LATEST;
        LazyTimer {
            sleep: Box::pin(sleep_until(at)),
            at,
        }
    }

    /// Sets it, whatever it was set to.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
    }

    /// Ready when it rings.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let wanted = self.at;
            if Instant::now() >= wanted {
                self.sleep.as_mut().reset(Instant::now() + AT_LATEST);
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(wanted);
        }
    }
}
