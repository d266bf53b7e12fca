//! Checks that the committed code under `src/wire/pb/` is generated from `proto/`, so that a build
//! needs no protobuf compiler and the code is not edited by hand.
//!
//! After a change in `proto/`: `UPDATE_PROTO=1 cargo test --test proto_gen`, and commit the result.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn committed_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = tempfile::tempdir().unwrap();
    generate(&root.join("proto"), generated.path());

    let committed = root.join("src/wire/pb");
    if std::env::var_os("UPDATE_PROTO").is_some_and(|value| value != "0") {
        for name in names(generated.path(), "rs") {
            fs::copy(generated.path().join(&name), committed.join(&name)).unwrap();
        }
    }

    let mut files = names(&committed, "rs");
    files.retain(|name| name != Path::new("mod.rs"));
    assert_eq!(
        files,
        names(generated.path(), "rs"),
        "the set of files differs"
    );
    for name in files {
        let want = fs::read_to_string(generated.path().join(&name)).unwrap();
        let have = fs::read_to_string(committed.join(&name)).unwrap();
        assert!(
            have == want,
            "src/wire/pb/{} differs from what proto/ generates; \
             run UPDATE_PROTO=1 cargo test --test proto_gen",
            name.display()
        );
    }
}

/// Generates one Rust file per protobuf package.
fn generate(proto: &Path, out: &Path) {
    let descriptors = protox::Compiler::new([proto])
        .unwrap()
        .include_source_info(true)
        .open_files(names(proto, "proto"))
        .unwrap()
        .file_descriptor_set();
    prost_build::Config::new()
        .out_dir(out)
        // Bytes fields are slices of the received message, not copies.
        .bytes(["."])
        .compile_fds(descriptors)
        .unwrap();
    for name in names(out, "rs") {
        let path = out.join(&name);
        let package = name.file_stem().unwrap().to_str().unwrap();
        let code = fs::read_to_string(&path).unwrap();
        let head = format!(
            "//! Messages of package `{package}`, generated from `proto/` by \
             `tests/proto_gen.rs`. Do not edit.\n\n"
        );
        fs::write(&path, head + &code).unwrap();
    }
}

/// Returns the names of the files in a folder with this extension, sorted.
fn names(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| PathBuf::from(entry.unwrap().file_name()))
        .filter(|name| name.extension().is_some_and(|e| e == extension))
        .collect();
    names.sort();
    names
}
