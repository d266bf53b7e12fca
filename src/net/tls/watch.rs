//! The system's word that files may have changed: contents, or what a path leads to. Secrets are
//! mounted as links to a folder that is swapped as a whole, so every link on the way is watched.
//! Where the system gives no word, none is given here.

use std::collections::HashMap;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Links on the way of one path that are followed; the kernel follows as many.
const MOST_LINKS: usize = 40;

/// Folders, and the names in them that matter.
type Places = HashMap<PathBuf, HashSet<OsString>>;

/// Where a change may change what a path leads to: the file's own name, and that of each link.
fn places<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Places {
    let mut places = Places::new();
    for path in paths {
        // Without a current folder a relative path leads nowhere.
        if let Ok(path) = std::path::absolute(path) {
            follow(&path, &mut places);
        }
    }
    places
}

fn follow(path: &Path, places: &mut Places) {
    let mut folder = PathBuf::new();
    // The steps to go, the next one last.
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
        // What is missing may come.
        if target.is_some() || steps.is_empty() || !here.exists() {
            let names = places.entry(folder.clone()).or_default();
            names.insert(name.to_owned());
        }
        match target {
            Some(target) if links < MOST_LINKS => {
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
pub(super) use linux::Watch;

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

    /// Room for some dozen events at once.
    const EVENTS_BYTES: usize = 4096;

    /// Watches until dropped.
    pub(in crate::net::tls) struct Watch {
        /// None where the system has no more to give; then only looking helps.
        inotify: Option<Inotify>,
        names: HashMap<WatchDescriptor, HashSet<OsString>>,
    }

    impl Watch {
        /// From now on. Folders that are not there are left out.
        pub(in crate::net::tls) fn on<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Watch {
            let mut names = HashMap::new();
            let places = super::places(paths);
            if places.is_empty() {
                return Watch {
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
            for (folder, wanted) in places {
                let added = watches.clone().map(|mut all| all.add(&folder, changes));
                if let Some(Ok(watch)) = added {
                    // Two ways may lead to one folder.
                    names
                        .entry(watch)
                        .or_insert_with(HashSet::new)
                        .extend(wanted);
                }
            }
            Watch { inotify, names }
        }

        /// Returns when something may have changed since [`Watch::on`].
        pub(in crate::net::tls) async fn changed(self) {
            let Some(inotify) = self.inotify else {
                return pending().await;
            };
            let mut events = match inotify.into_event_stream([0; EVENTS_BYTES]) {
                Ok(events) => events,
                Err(error) => return unheard(&error).await,
            };
            loop {
                match poll_fn(|cx| Pin::new(&mut events).poll_next(cx)).await {
                    Some(Ok(event)) if matters(&self.names, &event) => return,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return unheard(&error).await,
                    None => return pending().await,
                }
            }
        }
    }

    async fn unheard(error: &io::Error) {
        debug!(%error, "file watch failed");
        pending().await
    }

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
pub(super) struct Watch;

#[cfg(not(target_os = "linux"))]
impl Watch {
    pub(super) fn on<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Watch {
        drop(places(paths));
        Watch
    }

    pub(super) async fn changed(self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::{Places, places};
    use std::collections::HashSet;
    use std::ffi::OsString;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn names(all: &Places, folder: &Path) -> HashSet<OsString> {
        all.get(folder).cloned().unwrap_or_default()
    }

    fn set(names: &[&str]) -> HashSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    #[test]
    fn every_link_on_the_way_is_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (mount, first) = (root.join("mount"), root.join("mount/..one"));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::write(first.join("tls.crt"), "").unwrap();
        symlink("..one", mount.join("..data")).unwrap();
        symlink("..data/tls.crt", mount.join("tls.crt")).unwrap();
        symlink(&mount, root.join("way")).unwrap();
        let all = places([&*root.join("way/../way/tls.crt")]);
        // Beside what the test's own folder may be behind.
        assert_eq!(names(&all, &root), set(&["way"]));
        assert_eq!(names(&all, &mount), set(&["tls.crt", "..data"]));
        assert_eq!(names(&all, &first), set(&["tls.crt"]));
    }

    #[test]
    fn what_is_not_there_may_come_and_circles_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let all = places([&*root.join("a/b")]);
        assert_eq!(names(&all, &root), set(&["a"]));
        symlink("y", root.join("x")).unwrap();
        symlink("x", root.join("y")).unwrap();
        let all = places([&*root.join("x")]);
        assert_eq!(names(&all, &root), set(&["x", "y"]));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn changes_are_told_and_others_files_are_not() {
        use super::Watch;
        use std::time::Duration;
        use tokio::time::timeout;

        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let file = root.join("cert");
        std::fs::write(&file, "1").unwrap();
        let told = async |watch: Watch, wait| {
            let changed = timeout(Duration::from_millis(wait), watch.changed());
            changed.await.is_ok()
        };
        let watch = Watch::on([&*file]);
        std::fs::write(root.join("other"), "1").unwrap();
        std::fs::read(&file).unwrap();
        assert!(!told(watch, 50).await);
        let watch = Watch::on([&*file]);
        std::fs::write(root.join("new"), "2").unwrap();
        std::fs::rename(root.join("new"), &file).unwrap();
        assert!(told(watch, 5000).await);
        let watch = Watch::on([&*file]);
        std::fs::write(&file, "3").unwrap();
        assert!(told(watch, 5000).await);
        let watch = Watch::on([&*file]);
        std::fs::remove_file(&file).unwrap();
        assert!(told(watch, 5000).await);
        let watch = Watch::on([&*file]);
        std::fs::write(&file, "4").unwrap();
        assert!(told(watch, 5000).await);
        assert!(!told(Watch::on([]), 20).await);
    }
}
