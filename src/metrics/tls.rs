//! TLS on both sides: handshakes, and files that change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::counter::SharedCounter;

/// Both sides.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    /// Towards clients.
    pub clients: Arc<TlsSide>,
    /// Towards etcd.
    pub etcd: Arc<TlsSide>,
}

/// One side. Counted by any thread: a handshake costs far more.
#[derive(Debug, Default)]
pub struct TlsSide {
    shown: AtomicBool,
    /// Handshakes that were done.
    pub done: SharedCounter,
    /// Handshakes that came to nothing.
    pub failed: SharedCounter,
    /// Times that changed files were taken.
    pub reloads: SharedCounter,
    /// Times that changed files could not be used.
    pub reload_failures: SharedCounter,
    /// The files as they are now cannot be used.
    stale: AtomicBool,
    /// When the certificate ends, in seconds since 1970; 0 where there is none.
    not_after: AtomicU64,
}

impl TlsSide {
    /// This side has TLS, and shows a certificate that ends then, if it shows any.
    pub fn shows(&self, not_after: Option<u64>) {
        self.not_after
            .store(not_after.unwrap_or(0), Ordering::Relaxed);
        self.shown.store(true, Ordering::Relaxed);
    }

    /// Whether this side has TLS.
    pub fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }

    /// When its certificate ends, in seconds since 1970.
    pub fn not_after(&self) -> Option<u64> {
        let seconds = self.not_after.load(Ordering::Relaxed);
        (seconds > 0).then_some(seconds)
    }

    /// Whether the files that are there now cannot be used.
    pub fn set_stale(&self, stale: bool) {
        self.stale.store(stale, Ordering::Relaxed);
    }

    /// See [`TlsSide::set_stale`].
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    /// A handshake begins.
    pub fn handshake(&self) -> Handshake<'_> {
        Handshake {
            side: self,
            done: false,
        }
    }
}

/// A handshake, which has failed unless it is said to be done: who waits for it may give up.
pub struct Handshake<'a> {
    side: &'a TlsSide,
    done: bool,
}

impl Handshake<'_> {
    /// It is done.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let count = match self.done {
            true => &self.side.done,
            false => &self.side.failed,
        };
        count.inc();
    }
}
