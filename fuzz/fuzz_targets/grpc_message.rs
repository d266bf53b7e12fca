//! Runs `bodies/grpc_message.rs` under libFuzzer.
#![no_main]

#[path = "../bodies/grpc_message.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
