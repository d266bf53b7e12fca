//! Tests of single watches: compared with etcd itself (W4 to W8), for several users (R4, W10), far
//! behind (W2), with slow readers (W9), and on stalled members (E5).

#[path = "watch_streams/catch_up.rs"]
mod catch_up;
#[path = "watch_streams/fidelity.rs"]
mod fidelity;
#[path = "watch_streams/identities.rs"]
mod identities;
#[path = "watch_streams/leader.rs"]
mod leader;
#[path = "watch_streams/slow_readers.rs"]
mod slow_readers;
#[path = "watch_streams/stalled_member.rs"]
mod stalled_member;
mod support;
#[path = "watch_streams/tokens.rs"]
mod tokens;

const PUT: &str = "/etcdserverpb.KV/Put";
