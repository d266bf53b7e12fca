//! The process from start to stop: the ready line, start errors, shutdown, and the HTTP pages, logs
//! and traces in between (S2, E4).

mod support;

#[path = "life/access_log.rs"]
mod access_log;
#[path = "life/check_config.rs"]
mod check_config;
#[path = "life/http_pages.rs"]
mod http_pages;
#[path = "life/ipv6_zone.rs"]
mod ipv6_zone;
#[path = "life/start.rs"]
mod start;
#[path = "life/stop.rs"]
mod stop;
#[path = "life/systemd.rs"]
mod systemd;
#[path = "life/traces.rs"]
mod traces;
#[path = "life/unix_socket.rs"]
mod unix_socket;
#[path = "life/unread_bodies.rs"]
mod unread_bodies;

const RANGE: &str = "/etcdserverpb.KV/Range";
