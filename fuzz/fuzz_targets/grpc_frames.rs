//! Runs `bodies/grpc_frames.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/grpc_frames.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
