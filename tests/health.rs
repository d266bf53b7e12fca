//! How well the proxy is, as it tells it: the health pages beside Go's proxy, `grpc.health.v1`, the status
//! page in a browser, and profiles that Go's own tool reads.

mod support;

#[path = "health/calls.rs"]
mod calls;
#[path = "health/pages.rs"]
mod pages;
#[path = "health/people.rs"]
mod people;
#[path = "health/profiles.rs"]
mod profiles;
