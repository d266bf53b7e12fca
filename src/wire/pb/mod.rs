//! Messages of the intercepted methods, generated from `proto/`; `tests/proto_gen.rs` holds the two
//! together and says how to update.
//!
//! `bytes` fields are slices of the buffer decoded from. Decoding refuses messages nested deeper
//! than 100 levels, a transaction within a transaction taking two.
//!
//! Generated code answers to its generator, not to the lints of the house.
#![allow(missing_docs, clippy::all)]

#[rustfmt::skip]
pub mod etcdserverpb;
#[rustfmt::skip]
pub mod mvccpb;
