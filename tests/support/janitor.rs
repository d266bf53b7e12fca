//! Clears away what a test process leaves when it ends without dropping its values: children of
//! statics, and everything after a SIGKILL.
//!
//! A shell waits at the end of a pipe whose other end only this process holds. When the pipe
//! closes, for whatever reason, the shell kills the children that are still listed and removes the
//! folders and network namespaces. (Linux's parent-death signal would not do: it fires when the *thread* that spawned the
//! child ends, and each test has a thread of its own.)

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

/// This child is to be killed when this process is gone.
pub fn child(pid: u32) {
    tell(&format!("child {pid}"));
}

/// This child has ended and its id may be another's from now on.
pub fn reaped(pid: u32) {
    tell(&format!("reaped {pid}"));
}

/// This folder is to be removed when this process is gone.
pub fn folder(path: &Path) {
    tell(&format!("folder {}", path.display()));
}

/// This network namespace is to be removed when this process is gone.
pub fn net(name: &str) {
    tell(&format!("net {name}"));
}

/// A new folder under `target/`, removed when dropped or by the janitor.
pub fn temp_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    folder(dir.path());
    dir
}

fn tell(line: &str) {
    static JANITOR: OnceLock<Mutex<Child>> = OnceLock::new();
    let janitor = JANITOR.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "janitor"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Mutex::new(shell.expect("sh starts"))
    });
    let mut shell = janitor.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("stdin was asked to be a pipe");
    writeln!(pipe, "{line}").expect("the janitor lives as long as this process");
}
