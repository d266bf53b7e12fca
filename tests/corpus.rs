//! Replays the committed corpus of every fuzz target, so that faults found by fuzzing stay fixed on
//! machines without a fuzzer.
//!
//! To add a target: add a body under `fuzz/bodies/`, a file under `fuzz/fuzz_targets/`, a `[[bin]]`
//! in `fuzz/Cargo.toml`, a folder under `fuzz/corpus/`, and its two entries here.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

/// Maximum number of files in a corpus, and maximum bytes of each. Every test run replays them.
const MAX_FILES: usize = 200;
const MAX_LEN: usize = 1024;

#[path = "../fuzz/bodies/endpoint_parse.rs"]
mod endpoint_parse;
#[path = "../fuzz/bodies/first_bytes.rs"]
mod first_bytes;
#[path = "../fuzz/bodies/flag_parse.rs"]
mod flag_parse;
#[path = "../fuzz/bodies/grpc_frames.rs"]
mod grpc_frames;
#[path = "../fuzz/bodies/grpc_message.rs"]
mod grpc_message;
#[path = "../fuzz/bodies/grpc_timeout.rs"]
mod grpc_timeout;
#[path = "../fuzz/bodies/gzip.rs"]
mod gzip;
#[path = "../fuzz/bodies/http1_head.rs"]
mod http1_head;
#[path = "../fuzz/bodies/lease_hub.rs"]
mod lease_hub;
#[path = "../fuzz/bodies/namespace.rs"]
mod namespace;
#[path = "../fuzz/bodies/protobuf_walk.rs"]
mod protobuf_walk;
#[path = "../fuzz/bodies/read_cache.rs"]
mod read_cache;
#[path = "../fuzz/bodies/read_sharing.rs"]
mod read_sharing;
#[path = "../fuzz/bodies/watch_hub.rs"]
mod watch_hub;
#[path = "../fuzz/bodies/watch_response.rs"]
mod watch_response;
#[path = "../fuzz/bodies/watch_trunk.rs"]
mod watch_trunk;

/// Name and body of a fuzz target.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("endpoint_parse", endpoint_parse::run),
    ("first_bytes", first_bytes::run),
    ("flag_parse", flag_parse::run),
    ("grpc_frames", grpc_frames::run),
    ("grpc_message", grpc_message::run),
    ("grpc_timeout", grpc_timeout::run),
    ("gzip", gzip::run),
    ("http1_head", http1_head::run),
    ("lease_hub", lease_hub::run),
    ("namespace", namespace::run),
    ("protobuf_walk", protobuf_walk::run),
    ("read_cache", read_cache::run),
    ("read_sharing", read_sharing::run),
    ("watch_hub", watch_hub::run),
    ("watch_response", watch_response::run),
    ("watch_trunk", watch_trunk::run),
];

#[test]
fn every_corpus_replays_without_a_fault() {
    for (name, run) in TARGETS {
        replay(name, *run);
    }
}

#[test]
fn every_fuzz_target_is_listed() {
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["bodies", "fuzz_targets", "corpus"] {
        let found: BTreeSet<String> = entries(&fuzz().join(folder))
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, listed, "fuzz/{folder} and TARGETS differ");
    }
}

fn replay(name: &str, run: fn(&[u8])) {
    let files = entries(&fuzz().join("corpus").join(name));
    assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
    assert!(
        files.len() <= MAX_FILES,
        "fuzz/corpus/{name} has {} files, the maximum is {MAX_FILES}",
        files.len()
    );
    for file in files {
        let data = fs::read(&file).unwrap();
        assert!(data.len() <= MAX_LEN, "{} is too large", file.display());
        if let Err(fault) = panic::catch_unwind(|| run(&data)) {
            eprintln!("replaying {}", file.display());
            panic::resume_unwind(fault);
        }
    }
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Returns the paths in a folder, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
