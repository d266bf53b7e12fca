//! The listeners of `--metrics-addr`, which serve only the HTTP pages.

use crate::config::MetricsAddr;
use crate::error::StartError;
use crate::server::listener::BoundListener;

/// One bound listener of `--metrics-addr`.
pub(super) struct AdminListener {
    pub(super) listener: BoundListener,
    /// The URL of the pages, with the port that the system chose for port 0.
    pub(super) url: String,
    /// Whether it serves TLS, with the certificate of the client port.
    pub(super) tls: bool,
}

impl AdminListener {
    /// Binds the address.
    pub(super) fn bind(at: &MetricsAddr) -> Result<AdminListener, StartError> {
        let error = |e| StartError::new(format!("--metrics-addr={}", at.text), e);
        let listener = BoundListener::bind_tcp(&at.addr).map_err(error)?;
        let address = listener.address().map_err(error)?;
        let scheme = if at.tls { "https" } else { "http" };
        // A URL contains the zone of an IPv6 address in escaped form.
        let address = address.to_string().replace('%', "%25");
        Ok(AdminListener {
            listener,
            url: format!("{scheme}://{address}"),
            tls: at.tls,
        })
    }
}
