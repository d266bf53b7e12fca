//! The listeners of `--metrics-addr`.

use std::net::TcpListener as StdListener;

use crate::config::MetricsAddr;
use crate::error::StartError;
use crate::server::accept;

/// Further addresses of pages.
pub(super) struct PagesListener {
    pub(super) listener: StdListener,
    /// As it may be asked for: with the port that the system chose, where it was to.
    pub(super) url: String,
    /// Under the TLS that clients are served under.
    pub(super) tls: bool,
}

impl PagesListener {
    pub(super) fn bind(at: &MetricsAddr) -> Result<PagesListener, StartError> {
        let fault = |e| StartError::new(format!("--metrics-addr={}", at.text), e);
        let listener = accept::listen(&at.addr).map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let scheme = if at.tls { "https" } else { "http" };
        Ok(PagesListener {
            listener,
            url: format!("{scheme}://{address}"),
            tls: at.tls,
        })
    }
}
