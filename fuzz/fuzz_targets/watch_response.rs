//! Runs `bodies/watch_response.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/watch_response.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
