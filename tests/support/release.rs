//! The etcd releases under test and their binaries.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// The release for tests that need only one.
pub const NEWEST: &str = "3.7.3";

/// All releases under test, newest first.
pub fn versions() -> [&'static str; 3] {
    [NEWEST, "3.6.16", "3.5.35"]
}

/// Returns the path of `etcd`, `etcdctl` or `etcdutl` of a release. A missing release is
/// downloaded.
pub fn binary(version: &str, name: &str) -> PathBuf {
    // One download at a time; other threads wait and use its result.
    static DOWNLOAD: Mutex<()> = Mutex::new(());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("target/etcd").join(version).join(name);
    let _guard = DOWNLOAD.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        let script = root.join("scripts/get-etcd.sh");
        let output = Command::new(&script)
            .arg(version)
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && path.exists(),
            "no {name} {version}:\n{stderr}"
        );
    }
    path
}

/// Runs etcdctl of the newest release and returns its output.
pub fn etcdctl<I: AsRef<str>>(endpoint: &str, args: &[I]) -> Output {
    etcdctl_command(endpoint, args)
        .output()
        .expect("etcdctl starts")
}

/// Returns the command of [`etcdctl`] without starting it.
pub fn etcdctl_command<I: AsRef<str>>(endpoint: &str, args: &[I]) -> Command {
    let mut command = Command::new(binary(NEWEST, "etcdctl"));
    command.arg(format!("--endpoints={endpoint}"));
    command.args(args.iter().map(AsRef::as_ref));
    command
}
