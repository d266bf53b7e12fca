//! Runs `bodies/protobuf_walk.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/protobuf_walk.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
