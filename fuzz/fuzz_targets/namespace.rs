//! Runs `bodies/namespace.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/namespace.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
