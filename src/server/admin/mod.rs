//! Admin requests: routing, responses, the status page and profiles.

pub(super) mod pprof;
pub(super) mod response;
pub mod router;
pub(super) mod status_page;
