//! Runs `bodies/flag_parse.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/flag_parse.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
