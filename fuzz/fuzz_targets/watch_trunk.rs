//! Runs `bodies/watch_trunk.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/watch_trunk.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
