//! Runs `bodies/grpc_timeout.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/grpc_timeout.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
