//! Which listener a connection came through, and so what it is served.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// `--listen-addr`: calls and pages, under TLS if there is any towards clients.
    Clients,
    /// `--metrics-addr`: pages only.
    Pages {
        /// Under the same TLS.
        tls: bool,
    },
}
