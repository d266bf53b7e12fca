//! Reports file changes that the operating system notices (inotify), so that TLS files are reloaded
//! without delay.
//!
//! Secrets are mounted as symbolic links to a directory that is replaced as a whole. Therefore each
//! symbolic link on the way to a file is watched as well. On systems without inotify, no change is
//! reported.

use std::collections::HashMap;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Maximum symbolic links of one path that are followed, as in the kernel.
const MAX_LINKS: usize = 40;

/// Directories, and the names in each that are watched.
type WatchedNames = HashMap<PathBuf, HashSet<OsString>>;

/// Returns the names to watch: the file itself and each symbolic link on the way. A change of one
/// of these names may change the file behind a path.
fn watched_names<'a>(paths: impl IntoIterator<Item = &'a Path>) -> WatchedNames {
    let mut watched = WatchedNames::new();
    for path in paths {
        // Without a current directory, a relative path has no target.
        if let Ok(path) = std::path::absolute(path) {
            follow(&path, &mut watched);
        }
    }
    watched
}

/// Adds the names of one absolute path to `watched`.
fn follow(path: &Path, watched: &mut WatchedNames) {
    let mut folder = PathBuf::new();
    // Components that are left, the next one last.
    let mut steps = reversed(path);
    let mut links = 0;
    while let Some(step) = steps.pop() {
        let Component::Normal(name) = step
            .as_path()
            .components()
            .next()
            .unwrap_or(Component::CurDir)
        else {
            match step.as_os_str() == ".." {
                true => drop(folder.pop()),
                false => folder.push(&step),
            }
            continue;
        };
        let here = folder.join(name);
        let target = std::fs::read_link(&here).ok();
        // A missing file may be created.
        if target.is_some() || steps.is_empty() || !here.exists() {
            let names = watched.entry(folder.clone()).or_default();
            names.insert(name.to_owned());
        }
        match target {
            Some(target) if links < MAX_LINKS => {
                links += 1;
                steps.extend(reversed(&target));
            }
            Some(_) => return,
            None => folder = here,
        }
    }
}

fn reversed(path: &Path) -> Vec<PathBuf> {
    let steps = path.components().rev();
    steps
        .filter(|step| *step != Component::CurDir)
        .map(|step| PathBuf::from(step.as_os_str()))
        .collect()
}

#[cfg(target_os = "linux")]
pub(super) use linux::FileWatch;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{HashMap, HashSet};
    use std::ffi::OsString;
    use std::future::{pending, poll_fn};
    use std::io;
    use std::path::Path;
    use std::pin::Pin;

    use futures_core::Stream;
    use inotify::{EventMask, EventOwned, Inotify, WatchDescriptor, WatchMask};
    use tracing::debug;

    /// Size of the event buffer, for some dozen events.
    const EVENTS_BYTES: usize = 4096;

    /// Watches files until it is dropped.
    pub(in crate::net::tls) struct FileWatch {
        /// `None`: the system has no more inotify instances, so changes are found by polling only.
        inotify: Option<Inotify>,
        names: HashMap<WatchDescriptor, HashSet<OsString>>,
    }

    impl FileWatch {
        /// Starts to watch the files. Missing directories are skipped.
        pub(in crate::net::tls) fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> FileWatch {
            let mut names = HashMap::new();
            let watched = super::watched_names(paths);
            if watched.is_empty() {
                return FileWatch {
                    inotify: None,
                    names,
                };
            }
            let inotify = match Inotify::init() {
                Ok(inotify) => Some(inotify),
                Err(error) => {
                    debug!(%error, "file watch failed");
                    None
                }
            };
            let watches = inotify.as_ref().map(Inotify::watches);
            let changes = WatchMask::CREATE
                | WatchMask::CLOSE_WRITE
                | WatchMask::ATTRIB
                | WatchMask::MOVE
                | WatchMask::DELETE
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF;
            for (folder, wanted) in watched {
                let added = watches.clone().map(|mut all| all.add(&folder, changes));
                if let Some(Ok(watch)) = added {
                    // Two paths may lead to one directory.
                    names
                        .entry(watch)
                        .or_insert_with(HashSet::new)
                        .extend(wanted);
                }
            }
            FileWatch { inotify, names }
        }

        /// Returns when a file may have changed since [`FileWatch::new`].
        pub(in crate::net::tls) async fn changed(self) {
            let Some(inotify) = self.inotify else {
                return pending().await;
            };
            let mut events = match inotify.into_event_stream([0; EVENTS_BYTES]) {
                Ok(events) => events,
                Err(error) => return wait_forever(&error).await,
            };
            loop {
                match poll_fn(|cx| Pin::new(&mut events).poll_next(cx)).await {
                    Some(Ok(event)) if matters(&self.names, &event) => return,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return wait_forever(&error).await,
                    None => return pending().await,
                }
            }
        }
    }

    /// Logs the error and never returns.
    async fn wait_forever(error: &io::Error) {
        debug!(%error, "file watch failed");
        pending().await
    }

    /// Reports whether an event concerns a watched name, or a directory as a whole.
    fn matters(names: &HashMap<WatchDescriptor, HashSet<OsString>>, event: &EventOwned) -> bool {
        let whole = EventMask::Q_OVERFLOW
            | EventMask::DELETE_SELF
            | EventMask::MOVE_SELF
            | EventMask::UNMOUNT;
        let named = event.name.as_ref().is_some_and(|name| {
            let names = names.get(&event.wd);
            names.is_some_and(|names| names.contains(name))
        });
        named || event.mask.intersects(whole)
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct FileWatch;

#[cfg(not(target_os = "linux"))]
impl FileWatch {
    pub(super) fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> FileWatch {
        drop(watched_names(paths));
        FileWatch
    }

    pub(super) async fn changed(self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::{WatchedNames, watched_names};
    use std::collections::HashSet;
    use std::ffi::OsString;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn names(all: &WatchedNames, folder: &Path) -> HashSet<OsString> {
        all.get(folder).cloned().unwrap_or_default()
    }

    fn set(names: &[&str]) -> HashSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    #[test]
    fn every_symbolic_link_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (mount, first) = (root.join("mount"), root.join("mount/..one"));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::write(first.join("tls.crt"), "").unwrap();
        symlink("..one", mount.join("..data")).unwrap();
        symlink("..data/tls.crt", mount.join("tls.crt")).unwrap();
        symlink(&mount, root.join("way")).unwrap();
        let all = watched_names([&*root.join("way/../way/tls.crt")]);
        // The path of the temporary directory may have more symbolic links.
        assert_eq!(names(&all, &root), set(&["way"]));
        assert_eq!(names(&all, &mount), set(&["tls.crt", "..data"]));
        assert_eq!(names(&all, &first), set(&["tls.crt"]));
    }

    #[test]
    fn missing_files_are_watched_and_link_cycles_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let all = watched_names([&*root.join("a/b")]);
        assert_eq!(names(&all, &root), set(&["a"]));
        symlink("y", root.join("x")).unwrap();
        symlink("x", root.join("y")).unwrap();
        let all = watched_names([&*root.join("x")]);
        assert_eq!(names(&all, &root), set(&["x", "y"]));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn changes_of_watched_files_are_reported() {
        use super::FileWatch;
        use std::time::Duration;
        use tokio::time::timeout;

        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let file = root.join("cert");
        std::fs::write(&file, "1").unwrap();
        let reported = async |watch: FileWatch, wait| {
            let changed = timeout(Duration::from_millis(wait), watch.changed());
            changed.await.is_ok()
        };
        let watch = FileWatch::new([&*file]);
        std::fs::write(root.join("other"), "1").unwrap();
        std::fs::read(&file).unwrap();
        assert!(!reported(watch, 50).await);
        let watch = FileWatch::new([&*file]);
        std::fs::write(root.join("new"), "2").unwrap();
        std::fs::rename(root.join("new"), &file).unwrap();
        assert!(reported(watch, 5000).await);
        let watch = FileWatch::new([&*file]);
        std::fs::write(&file, "3").unwrap();
        assert!(reported(watch, 5000).await);
        let watch = FileWatch::new([&*file]);
        std::fs::remove_file(&file).unwrap();
        assert!(reported(watch, 5000).await);
        let watch = FileWatch::new([&*file]);
        std::fs::write(&file, "4").unwrap();
        assert!(reported(watch, 5000).await);
        assert!(!reported(FileWatch::new([]), 20).await);
    }
}
