//! The test program built from `tests/go`, which runs the real Go client of etcd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Builds the program on the first call and returns its path.
pub fn client() -> PathBuf {
    // Built once per process: a program that is running cannot be overwritten.
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

/// Returns the output of `-test.v` without the tests that passed.
pub fn without_passed(output: &str) -> String {
    let mut blocks: Vec<String> = vec![String::new()];
    for line in output.lines() {
        // The name of a subtest contains a slash.
        if line.starts_with("=== RUN") && !line.contains('/') {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks.retain(|block| !block.contains("\n--- PASS: "));
    blocks.concat()
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/go-client/client.test");
    let built = Command::new("go")
        .args(["test", "-c", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(root.join("tests/go"))
        .output();
    let built = built.unwrap_or_else(|error| {
        panic!("this test needs Go 1.26 or newer on PATH (https://go.dev/dl): {error}")
    });
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "tests/go does not build; it needs Go 1.26 or newer:\n{stderr}"
    );
    program
}
