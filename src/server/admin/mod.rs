//! Admin requests: routing, responses, health pages, the status page and profiles.

pub(super) mod health_pages;
pub(super) mod pprof;
pub(super) mod response;
pub mod router;
pub(super) mod status_page;
