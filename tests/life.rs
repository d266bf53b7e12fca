//! From the first log line to the last call: starting, being told to stop, what stops a start, and
//! the HTTP pages, the logs and the traces all the while (S2, E4).

mod support;

#[path = "life/check.rs"]
mod check;
#[path = "life/pages.rs"]
mod pages;
#[path = "life/records.rs"]
mod records;
#[path = "life/spans.rs"]
mod spans;
#[path = "life/start.rs"]
mod start;
#[path = "life/stop.rs"]
mod stop;
#[path = "life/unit.rs"]
mod unit;

const RANGE: &str = "/etcdserverpb.KV/Range";
