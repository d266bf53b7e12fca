//! The documentation, held to what is true: its commands are run, its flags, limits, metrics and log lines
//! are looked up, its links are followed; and the documentation of `etcd grpc-proxy`, which users follow,
//! holds for this program too.
//!
//! How a page says that a command is not run here: [`pages::Mark`].

mod support;

#[path = "docs/flags.rs"]
mod flags;
#[path = "docs/handbook.rs"]
mod handbook;
#[path = "docs/help.rs"]
mod help;
#[path = "docs/names.rs"]
mod names;
#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/shell.rs"]
mod shell;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use support::cluster::Cluster;
use support::release::NEWEST;

/// The top of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `etcd-edge start --help` prints.
fn help_text() -> String {
    let help = Command::new(env!("CARGO_BIN_EXE_etcd-edge"))
        .args(["start", "--help"])
        .output();
    let help = help.expect("it starts");
    assert!(help.status.success(), "{help:?}");
    String::from_utf8(help.stdout).expect("UTF-8")
}

/// Three members for all tests of this file that run at the same time.
fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start(NEWEST, 3));
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

/// Every file below a folder with this ending, by its path from the top of the project, in order.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|each| each == ending) {
                let path = path.strip_prefix(root()).expect("below it");
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The text of a file by its path from the top of the project.
fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
