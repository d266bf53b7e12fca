//! Runs `bodies/first_bytes.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/first_bytes.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
