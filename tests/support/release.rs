//! The etcd releases under test and their binaries.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// The release the tests use when one is enough.
pub const NEWEST: &str = "3.7.3";

/// All releases under test, newest first.
pub fn versions() -> [&'static str; 3] {
    [NEWEST, "3.6.16", "3.5.35"]
}

/// The path of `etcd`, `etcdctl` or `etcdutl` of a release, fetched first if it is missing.
pub fn binary(version: &str, name: &str) -> PathBuf {
    // One fetch at a time; the others find its result.
    static FETCHING: Mutex<()> = Mutex::new(());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("target/etcd").join(version).join(name);
    let _one = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        let script = root.join("scripts/get-etcd.sh");
        let got = Command::new(&script)
            .arg(version)
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let said = String::from_utf8_lossy(&got.stderr);
        assert!(
            got.status.success() && path.exists(),
            "no {name} {version}:\n{said}"
        );
    }
    path
}

/// Runs etcdctl of the newest release to its end.
pub fn etcdctl<I: AsRef<str>>(endpoint: &str, args: &[I]) -> Output {
    etcdctl_command(endpoint, args)
        .output()
        .expect("etcdctl starts")
}

/// The same, not yet started.
pub fn etcdctl_command<I: AsRef<str>>(endpoint: &str, args: &[I]) -> Command {
    let mut command = Command::new(binary(NEWEST, "etcdctl"));
    command.arg(format!("--endpoints={endpoint}"));
    command.args(args.iter().map(AsRef::as_ref));
    command
}
