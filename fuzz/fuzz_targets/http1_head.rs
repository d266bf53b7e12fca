//! Runs `bodies/http1_head.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/http1_head.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
