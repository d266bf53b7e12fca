//! Files that change while the process runs (S3).
//!
//! A change is noticed by the system's word where it gives one, and by looking now and then where
//! it does not; somebody may also ask. Files of a set are written one after the other, so what is
//! wrong just after a change is looked at again before it is called wrong, which is done once.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::files::{Contents, File};
use super::watch::Watch;
use crate::error::StartError;
use crate::limits;
use crate::metrics::TlsSide;

/// One side's files, and what is done with new contents.
pub struct Side {
    name: &'static str,
    files: Vec<File>,
    counts: Arc<TlsSide>,
    renew: Renew,
    /// Fingerprint of the contents that were taken, or called wrong, last.
    settled: u64,
    /// The settled contents are wrong.
    wrong: bool,
    /// Fingerprint of contents that were wrong at the last look, and may be half of a change.
    suspect: Option<u64>,
}

type Renew = Box<dyn Fn(&Contents) -> Result<(), StartError> + Send>;

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nothing to do.
    Same,
    /// New contents are in force.
    Renewed,
    /// To be looked at again soon.
    Unsettled,
    /// Called wrong, this time.
    Wrong,
}

impl Side {
    /// What is made of the files, now and whenever they have changed.
    pub(super) fn begin<T: Send + Sync + 'static>(
        name: &'static str,
        files: Vec<File>,
        counts: Arc<TlsSide>,
        make: impl Fn(&Contents) -> Result<T, StartError> + Send + 'static,
    ) -> Result<(Arc<ArcSwap<T>>, Side), StartError> {
        let contents = Contents::read(&files);
        let current = Arc::new(ArcSwap::from_pointee(make(&contents)?));
        let shared = current.clone();
        let renew = move |contents: &Contents| {
            shared.store(Arc::new(make(contents)?));
            Ok(())
        };
        let side = Side {
            name,
            files,
            counts,
            renew: Box::new(renew),
            settled: contents.fingerprint(),
            wrong: false,
            suspect: None,
        };
        Ok((current, side))
    }

    /// Reads the files. `asked`: by somebody who wants an answer now, and whose files are complete.
    fn look(&mut self, asked: bool) -> Look {
        let contents = Contents::read(&self.files);
        let print = contents.fingerprint();
        if print == self.settled && !(asked && self.wrong) {
            self.suspect = None;
            return Look::Same;
        }
        match (self.renew)(&contents) {
            Ok(()) => {
                (self.settled, self.wrong, self.suspect) = (print, false, None);
                self.counts.reloads.inc();
                self.counts.set_stale(false);
                info!(side = self.name, "TLS files reloaded");
                Look::Renewed
            }
            Err(_) if !asked && self.suspect != Some(print) => {
                self.suspect = Some(print);
                Look::Unsettled
            }
            Err(error) => {
                (self.settled, self.wrong, self.suspect) = (print, true, None);
                self.counts.reload_failures.inc();
                self.counts.set_stale(true);
                warn!(
                    side = self.name,
                    %error,
                    "TLS files changed but cannot be loaded: keeping the previous ones"
                );
                Look::Wrong
            }
        }
    }
}

/// Keeps all sides up to date until dropped. Whoever notifies `asked` has all files looked at, and
/// told about in the log whatever comes of it.
pub async fn run(mut sides: Vec<Side>, asked: Arc<Notify>) {
    let mut ask = false;
    while sides.is_empty() {
        asked.notified().await;
        info!("no TLS files to reload");
    }
    loop {
        // Files may be where reading takes its time, and connections are accepted on this thread.
        let looked = spawn_blocking(move || {
            // Watched before they are read: what changes in between is noticed.
            let paths = sides.iter().flat_map(|side| &side.files);
            let watch = Watch::on(paths.map(|file| file.path.as_path()));
            let looks: Vec<_> = sides.iter_mut().map(|side| side.look(ask)).collect();
            (sides, watch, looks)
        });
        let Ok((same, watch, looks)) = looked.await else {
            // Only at the end of the runtime, or by a panic, which is in the log.
            return;
        };
        sides = same;
        if ask && looks.iter().all(|look| *look == Look::Same) {
            info!("TLS files unchanged");
        }
        let pause = match looks.contains(&Look::Unsettled) {
            true => limits::TLS_REPORT_DELAY,
            false => limits::TLS_POLL_INTERVAL,
        };
        ask = wait(watch, &asked, pause).await;
    }
}

/// Until there is something to look at; whether somebody asked.
async fn wait(watch: Watch, asked: &Notify, pause: Duration) -> bool {
    tokio::select! {
        () = asked.notified() => return true,
        () = sleep(pause) => return false,
        () = watch.changed() => {}
    }
    // More files of the same change are on their way.
    tokio::select! {
        () = asked.notified() => true,
        () = sleep(limits::TLS_SETTLE_TIME) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Contents, File, Look, Side};
    use crate::error::StartError;
    use crate::metrics::TlsSide;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn what_is_wrong_is_looked_at_twice_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::new("--cert", &dir.path().join("cert"));
        let write = |text: &str| std::fs::write(&file.path, text).unwrap();
        write("good");
        let taken = Arc::new(AtomicUsize::new(0));
        let make = {
            let (file, taken) = (file.clone(), taken.clone());
            move |contents: &Contents| {
                let text = contents.of(&file)?.to_vec();
                if !text.starts_with(b"good") {
                    return Err(StartError::new("cert", "bad"));
                }
                taken.fetch_add(1, Ordering::Relaxed);
                Ok(text)
            }
        };
        let files = vec![file.clone()];
        let counts = Arc::new(TlsSide::default());
        let (current, mut side) = Side::begin("test", files, counts.clone(), make).unwrap();
        assert_eq!(side.look(false), Look::Same);
        assert_eq!(side.look(true), Look::Same);
        write("good 2");
        assert_eq!(side.look(false), Look::Renewed);
        assert_eq!(side.look(false), Look::Same);
        // Half of a change, and then the whole.
        write("b");
        assert_eq!(side.look(false), Look::Unsettled);
        write("ba");
        assert_eq!(side.look(false), Look::Unsettled);
        write("good 3");
        assert_eq!(side.look(false), Look::Renewed);
        assert!(!counts.is_stale());
        // Wrong for good.
        write("bad");
        assert_eq!(side.look(false), Look::Unsettled);
        assert_eq!(side.look(false), Look::Wrong);
        assert_eq!(side.look(false), Look::Same);
        // Who asks is told again, and at once.
        assert_eq!(side.look(true), Look::Wrong);
        write("worse");
        assert_eq!(side.look(true), Look::Wrong);
        assert_eq!(side.look(false), Look::Same);
        // A file that is not there is wrong too, in its own way.
        std::fs::remove_file(&file.path).unwrap();
        assert_eq!(side.look(false), Look::Unsettled);
        assert_eq!(side.look(false), Look::Wrong);
        assert_eq!(side.look(false), Look::Same);
        assert_eq!(taken.load(Ordering::Relaxed), 3);
        assert_eq!(current.load()[..], *b"good 3");
        assert!(counts.is_stale());
        // What was in force all the time is taken like anything new.
        write("good 3");
        assert_eq!(side.look(false), Look::Renewed);
        assert!(!counts.is_stale());
        assert_eq!((counts.reloads.get(), counts.reload_failures.get()), (3, 4));
    }
}
