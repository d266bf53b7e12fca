//! Runs `bodies/lease_hub.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/lease_hub.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
