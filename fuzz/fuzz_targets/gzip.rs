//! Runs `bodies/gzip.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/gzip.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
