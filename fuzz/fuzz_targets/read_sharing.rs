//! Runs `bodies/read_sharing.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/read_sharing.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
