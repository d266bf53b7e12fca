//! The documentation is compared with the program and the source.
//!
//! - The commands of all pages run against a real etcd, and so do those of the documentation of
//!   `etcd grpc-proxy`.
//! - Flags, metrics, limits, log messages, files, tests and rules that pages name exist.
//! - The pages of limits, log messages and rule tests are complete.
//! - Relative links and anchors resolve.
//!
//! A comment above a block excludes it from the run: [`pages::Mark`].
//! `UPDATE_DOCS=1 cargo test --test docs` rewrites the generated parts.

mod support;

#[path = "docs/etcd_pages.rs"]
mod etcd_pages;
#[path = "docs/flags.rs"]
mod flags;
#[path = "docs/help.rs"]
mod help;
#[path = "docs/limits.rs"]
mod limits;
#[path = "docs/log_messages.rs"]
mod log_messages;
#[path = "docs/names.rs"]
mod names;
#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/rules.rs"]
mod rules;
#[path = "docs/shell.rs"]
mod shell;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use support::cluster::Cluster;
use support::release::NEWEST;

/// Root of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Output of `etcd-edge start --help`.
fn help_text() -> String {
    let help = Command::new(env!("CARGO_BIN_EXE_etcd-edge"))
        .args(["start", "--help"])
        .output();
    let help = help.expect("etcd-edge starts");
    assert!(help.status.success(), "{help:?}");
    String::from_utf8(help.stdout).expect("UTF-8")
}

/// Cluster of three members, shared by all tests of this target that run at the same time.
fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start(NEWEST, 3));
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

/// Files below a folder with this extension, as sorted paths relative to the root.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|each| each == extension) {
                let path = path.strip_prefix(root()).expect("a path below the root");
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Text of a file, by its path relative to the root.
fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a page with its generated text, or writes it if `UPDATE_DOCS` is set.
#[track_caller]
fn assert_generated(page: &str, generated: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join(page), generated).expect("the page is written");
    }
    let current = std::fs::read_to_string(root().join(page)).unwrap_or_default();
    for (current, expected) in current.lines().zip(generated.lines()) {
        assert_eq!(current, expected, "{page} is out of date");
    }
    assert!(current == generated, "{page} is out of date");
}
