//! Tests of complete histories of reads and writes, in front of a real etcd. Its members are killed
//! and paused. The results of clients are compared with etcd's own history and with the clock (R1
//! to R3, R5).
//!
//! `ETCD_EDGE_HISTORY=OPS` sets the number of operations of the linearizable test, for a long run.

mod support;

#[path = "read_history/checker.rs"]
mod checker;
#[path = "read_history/checker_tests.rs"]
mod checker_tests;
#[path = "read_history/clients.rs"]
mod clients;
#[path = "read_history/history.rs"]
mod history;
#[path = "read_history/linearizable.rs"]
mod linearizable;
#[path = "read_history/ordering.rs"]
mod ordering;
#[path = "read_history/serializable.rs"]
mod serializable;
#[path = "read_history/staleness.rs"]
mod staleness;
