//! Reloads TLS files that change while the process runs (S3).
//!
//! The operating system reports changes if it can. In addition, the files are checked at a fixed
//! interval, and on request. The files of a set are written one after the other. Therefore contents
//! that are invalid just after a change are checked once more before they are reported as invalid.
//! Each invalid state is reported once.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::file_watch::FileWatch;
use super::files::{FileContents, FlagFile};
use crate::error::StartError;
use crate::limits;
use crate::metrics::TlsSide;

/// The files of one side, and the function that applies new contents.
pub struct Reloader {
    name: &'static str,
    files: Vec<FlagFile>,
    counts: Arc<TlsSide>,
    apply: ApplyContents,
    /// Fingerprint of the contents that were last applied or reported as invalid.
    settled: u64,
    /// The settled contents are invalid.
    invalid: bool,
    /// Fingerprint of contents that were invalid at the last check and may be half of a change.
    unconfirmed: Option<u64>,
}

type ApplyContents = Box<dyn Fn(&FileContents) -> Result<(), StartError> + Send>;

/// Result of one check of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadOutcome {
    /// There is nothing to do.
    Unchanged,
    /// The new contents are in use.
    Reloaded,
    /// The contents are invalid. Another check follows soon.
    Unsettled,
    /// The contents are invalid, and this check has reported it.
    Invalid,
}

impl Reloader {
    /// Builds the first value from the files, and prepares to build it again after each change.
    /// `name` is the name of the side in log messages. Returns a pointer to the current value.
    ///
    /// # Errors
    /// The error of `build`.
    pub(super) fn new<T: Send + Sync + 'static>(
        name: &'static str,
        files: Vec<FlagFile>,
        counts: Arc<TlsSide>,
        build: impl Fn(&FileContents) -> Result<T, StartError> + Send + 'static,
    ) -> Result<(Arc<ArcSwap<T>>, Reloader), StartError> {
        let contents = FileContents::read(&files);
        let current = Arc::new(ArcSwap::from_pointee(build(&contents)?));
        let shared = current.clone();
        let apply = move |contents: &FileContents| {
            shared.store(Arc::new(build(contents)?));
            Ok(())
        };
        let reloader = Reloader {
            name,
            files,
            counts,
            apply: Box::new(apply),
            settled: contents.fingerprint(),
            invalid: false,
            unconfirmed: None,
        };
        Ok((current, reloader))
    }

    /// Reads the files and applies them if they have changed. `requested`: an operator has
    /// requested the check. Then the files are complete, and an invalid state is reported at once
    /// and again.
    fn check(&mut self, requested: bool) -> ReloadOutcome {
        let contents = FileContents::read(&self.files);
        let fingerprint = contents.fingerprint();
        if fingerprint == self.settled && !(requested && self.invalid) {
            self.unconfirmed = None;
            return ReloadOutcome::Unchanged;
        }
        match (self.apply)(&contents) {
            Ok(()) => {
                (self.settled, self.invalid, self.unconfirmed) = (fingerprint, false, None);
                self.counts.reloads.inc();
                self.counts.set_files_unusable(false);
                info!(side = self.name, "TLS files reloaded");
                ReloadOutcome::Reloaded
            }
            Err(_) if !requested && self.unconfirmed != Some(fingerprint) => {
                self.unconfirmed = Some(fingerprint);
                ReloadOutcome::Unsettled
            }
            Err(error) => {
                (self.settled, self.invalid, self.unconfirmed) = (fingerprint, true, None);
                self.counts.reload_failures.inc();
                self.counts.set_files_unusable(true);
                warn!(
                    side = self.name,
                    %error,
                    "TLS files changed but cannot be loaded: keeping the previous ones"
                );
                ReloadOutcome::Invalid
            }
        }
    }
}

/// Reloads the files of all sides until the future is dropped. A notification of `requests` checks
/// all files at once and logs the result in any case.
pub async fn run(mut reloaders: Vec<Reloader>, requests: Arc<Notify>) {
    let mut requested = false;
    while reloaders.is_empty() {
        requests.notified().await;
        info!("no TLS files to reload");
    }
    loop {
        // A read may block, for example on a network file system. This thread accepts connections.
        let check = spawn_blocking(move || {
            // The watch starts before the read, so it reports a change in between.
            let paths = reloaders.iter().flat_map(|reloader| &reloader.files);
            let watch = FileWatch::new(paths.map(|file| file.path.as_path()));
            let outcomes: Vec<_> = reloaders
                .iter_mut()
                .map(|reloader| reloader.check(requested))
                .collect();
            (reloaders, watch, outcomes)
        });
        let Ok((returned, watch, outcomes)) = check.await else {
            // The runtime ends, or the check has panicked, which is in the log.
            return;
        };
        reloaders = returned;
        if requested
            && outcomes
                .iter()
                .all(|each| *each == ReloadOutcome::Unchanged)
        {
            info!("TLS files unchanged");
        }
        let pause = match outcomes.contains(&ReloadOutcome::Unsettled) {
            true => limits::TLS_REPORT_DELAY,
            false => limits::TLS_POLL_INTERVAL,
        };
        requested = wait(watch, &requests, pause).await;
    }
}

/// Waits until the next check is due. Returns true if it was requested.
async fn wait(watch: FileWatch, requests: &Notify, pause: Duration) -> bool {
    tokio::select! {
        () = requests.notified() => return true,
        () = sleep(pause) => return false,
        () = watch.changed() => {}
    }
    // More files of the same change may follow.
    tokio::select! {
        () = requests.notified() => true,
        () = sleep(limits::TLS_SETTLE_TIME) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{FileContents, FlagFile, ReloadOutcome, Reloader};
    use crate::error::StartError;
    use crate::metrics::TlsSide;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn invalid_files_are_checked_twice_and_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = FlagFile::new("--cert", &dir.path().join("cert"));
        let write = |text: &str| std::fs::write(&file.path, text).unwrap();
        write("good");
        let applied = Arc::new(AtomicUsize::new(0));
        let build = {
            let (file, applied) = (file.clone(), applied.clone());
            move |contents: &FileContents| {
                let text = contents.bytes(&file)?.to_vec();
                if !text.starts_with(b"good") {
                    return Err(StartError::new("cert", "bad"));
                }
                applied.fetch_add(1, Ordering::Relaxed);
                Ok(text)
            }
        };
        let files = vec![file.clone()];
        let counts = Arc::new(TlsSide::default());
        let (current, mut reloader) = Reloader::new("test", files, counts.clone(), build).unwrap();
        assert_eq!(reloader.check(false), ReloadOutcome::Unchanged);
        assert_eq!(reloader.check(true), ReloadOutcome::Unchanged);
        write("good 2");
        assert_eq!(reloader.check(false), ReloadOutcome::Reloaded);
        assert_eq!(reloader.check(false), ReloadOutcome::Unchanged);
        // Half of a change, then the complete change.
        write("b");
        assert_eq!(reloader.check(false), ReloadOutcome::Unsettled);
        write("ba");
        assert_eq!(reloader.check(false), ReloadOutcome::Unsettled);
        write("good 3");
        assert_eq!(reloader.check(false), ReloadOutcome::Reloaded);
        assert!(!counts.has_unusable_files());
        // Invalid in two checks.
        write("bad");
        assert_eq!(reloader.check(false), ReloadOutcome::Unsettled);
        assert_eq!(reloader.check(false), ReloadOutcome::Invalid);
        assert_eq!(reloader.check(false), ReloadOutcome::Unchanged);
        // A requested check reports at once and again.
        assert_eq!(reloader.check(true), ReloadOutcome::Invalid);
        write("worse");
        assert_eq!(reloader.check(true), ReloadOutcome::Invalid);
        assert_eq!(reloader.check(false), ReloadOutcome::Unchanged);
        // A missing file is another invalid state.
        std::fs::remove_file(&file.path).unwrap();
        assert_eq!(reloader.check(false), ReloadOutcome::Unsettled);
        assert_eq!(reloader.check(false), ReloadOutcome::Invalid);
        assert_eq!(reloader.check(false), ReloadOutcome::Unchanged);
        assert_eq!(applied.load(Ordering::Relaxed), 3);
        assert_eq!(current.load()[..], *b"good 3");
        assert!(counts.has_unusable_files());
        // The contents in use are applied like new ones.
        write("good 3");
        assert_eq!(reloader.check(false), ReloadOutcome::Reloaded);
        assert!(!counts.has_unusable_files());
        assert_eq!((counts.reloads.get(), counts.reload_failures.get()), (3, 4));
    }
}
