//! Reads: many that ask the same, few at etcd, and none older than it may be (R1 to R6).

pub mod cache;
pub mod cover;
pub mod crowd;
pub mod floors;
pub mod heat;
pub mod sharing;
