//! Health of the proxy: the health pages compared with Go's proxy, `grpc.health.v1`, the status
//! page in a browser, and profiles that Go's own tool reads.

mod support;

#[path = "health/grpc_health.rs"]
mod grpc_health;
#[path = "health/health_pages.rs"]
mod health_pages;
#[path = "health/outage.rs"]
mod outage;
#[path = "health/pprof.rs"]
mod pprof;
#[path = "health/readyz_pages.rs"]
mod readyz_pages;
#[path = "health/status_page.rs"]
mod status_page;
