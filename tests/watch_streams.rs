//! Watches one by one: side by side with etcd itself (W4 to W8), of several users (R4, W10), far
//! behind (W2), read slowly or not at all (W9), and on members that stall (E5).

#[path = "watch_streams/fidelity.rs"]
mod fidelity;
#[path = "watch_streams/joining.rs"]
mod joining;
#[path = "watch_streams/leader.rs"]
mod leader;
#[path = "watch_streams/slow.rs"]
mod slow;
#[path = "watch_streams/stalled.rs"]
mod stalled;
mod support;
#[path = "watch_streams/users.rs"]
mod users;

const PUT: &str = "/etcdserverpb.KV/Put";
