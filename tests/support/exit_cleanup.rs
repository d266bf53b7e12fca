//! Cleanup after a test process that ends without dropping its values: children held by statics,
//! and everything after a SIGKILL.
//!
//! A shell reads from a pipe whose write end is open only in this process. When the pipe closes,
//! for any reason, the shell kills the registered children and removes the folders and network
//! namespaces. Linux's parent-death signal does not work here: it fires when the *thread* that
//! spawned the child ends, and each test runs in its own thread.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=' '
nets=
while read -r what arg; do
    case $what in
        child) pids="$pids$arg " ;;
        reaped) case $pids in *" $arg "*) pids="${pids%% "$arg" *} ${pids#* "$arg" }" ;; esac ;;
        folder) set -- "$@" "$arg" ;;
        net) nets="$nets $arg" ;;
    esac
done
for pid in $pids; do kill -9 "$pid"; done
for net in $nets; do ip netns del "$net"; done
sleep 0.3
for folder in "$@"; do rm -rf "$folder"; done
"#;

/// Registers a child to be killed when this process ends.
pub fn child(pid: u32) {
    send(&format!("child {pid}"));
}

/// Unregisters a child that has ended, since its id may be reused.
pub fn reaped(pid: u32) {
    send(&format!("reaped {pid}"));
}

/// Registers a folder to be removed when this process ends.
pub fn folder(path: &Path) {
    send(&format!("folder {}", path.display()));
}

/// Registers a network namespace to be removed when this process ends.
pub fn net(name: &str) {
    send(&format!("net {name}"));
}

/// Creates a folder under `target/`, removed when dropped or when this process ends.
pub fn temp_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    folder(dir.path());
    dir
}

fn send(line: &str) {
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    let shell = SHELL.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "exit-cleanup"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Mutex::new(shell.expect("sh starts"))
    });
    let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("stdin is a pipe");
    writeln!(pipe, "{line}").expect("the shell runs as long as this process");
}
