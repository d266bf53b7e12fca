//! Runs `bodies/endpoint_parse.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/endpoint_parse.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
