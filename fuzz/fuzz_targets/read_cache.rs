//! Runs `bodies/read_cache.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/read_cache.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
