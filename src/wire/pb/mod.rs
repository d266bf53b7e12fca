//! Messages of the intercepted methods, generated from `proto/`. `tests/proto_gen.rs` checks that
//! the code matches `proto/`, and describes how to update it.
//!
//! `bytes` fields are slices of the decoded buffer. Decoding rejects messages nested deeper than
//! 100 levels. A transaction within a transaction needs two levels.
//!
//! The lints of this project do not apply to generated code.
#![allow(missing_docs, clippy::all)]

#[rustfmt::skip]
pub mod etcdserverpb;
#[rustfmt::skip]
pub mod mvccpb;
