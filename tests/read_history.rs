//! Whole histories of reads and writes, in front of real etcd whose members are killed and stopped:
//! what clients were told, held against etcd's own history and against the clock (R1 to R3, R5).
//!
//! By hand, for long: `ETCD_EDGE_HISTORY=OPS` makes so many operations of the linearizable test.

mod support;

#[path = "read_history/bounded.rs"]
mod bounded;
#[path = "read_history/bounds.rs"]
mod bounds;
#[path = "read_history/checker.rs"]
mod checker;
#[path = "read_history/clients.rs"]
mod clients;
#[path = "read_history/history.rs"]
mod history;
#[path = "read_history/linear.rs"]
mod linear;
#[path = "read_history/made_up.rs"]
mod made_up;
#[path = "read_history/ordering.rs"]
mod ordering;
