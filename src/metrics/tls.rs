//! Metrics of TLS on both sides: handshakes and reloads of files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::counter::SharedCounter;

/// Metrics of both sides.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    /// TLS with clients.
    pub clients: Arc<TlsSide>,
    /// TLS with etcd.
    pub etcd: Arc<TlsSide>,
}

/// Metrics of one side. Any thread may count: a handshake costs far more than an atomic addition.
#[derive(Debug, Default)]
pub struct TlsSide {
    enabled: AtomicBool,
    /// Completed handshakes.
    pub handshakes: SharedCounter,
    /// Failed or abandoned handshakes.
    pub handshake_failures: SharedCounter,
    /// Reloads of changed files.
    pub reloads: SharedCounter,
    /// Failed reloads of changed files.
    pub reload_failures: SharedCounter,
    /// The files on disk cannot be loaded.
    files_unusable: AtomicBool,
    /// Expiry time of the certificate, in seconds since 1970; 0 without a certificate.
    not_after: AtomicU64,
}

impl TlsSide {
    /// Enables the export of this side. `not_after` is the expiry time of the presented certificate
    /// in seconds since 1970, or `None` without a certificate.
    pub fn enable(&self, not_after: Option<u64>) {
        self.not_after
            .store(not_after.unwrap_or(0), Ordering::Relaxed);
        self.enabled.store(true, Ordering::Relaxed);
    }

    /// Returns whether this side has TLS.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Returns the expiry time of the certificate, in seconds since 1970.
    pub fn not_after(&self) -> Option<u64> {
        let seconds = self.not_after.load(Ordering::Relaxed);
        (seconds > 0).then_some(seconds)
    }

    /// Sets whether the files on disk cannot be loaded.
    pub fn set_files_unusable(&self, files_unusable: bool) {
        self.files_unusable.store(files_unusable, Ordering::Relaxed);
    }

    /// Returns whether the files on disk could not be loaded at the last check.
    pub fn has_unusable_files(&self) -> bool {
        self.files_unusable.load(Ordering::Relaxed)
    }

    /// Starts to measure a handshake.
    pub fn begin_handshake(&self) -> Handshake<'_> {
        Handshake {
            side: self,
            completed: false,
        }
    }
}

/// Handshake in progress. A handshake counts as failed if it is dropped before
/// [`Handshake::complete`], because the task that waits for it may be cancelled.
pub struct Handshake<'a> {
    side: &'a TlsSide,
    completed: bool,
}

impl Handshake<'_> {
    /// Counts the handshake as completed.
    pub fn complete(mut self) {
        self.completed = true;
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let count = match self.completed {
            true => &self.side.handshakes,
            false => &self.side.handshake_failures,
        };
        count.inc();
    }
}
