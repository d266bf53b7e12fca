//! Kind of a listener: which requests its connections may send, and whether they use TLS.

/// Kind of the listener that accepted a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// `--listen-addr`: gRPC calls and admin requests, with TLS if client TLS is configured.
    Clients,
    /// `--metrics-addr`: admin requests only.
    Admin {
        /// Uses the TLS configuration of the client listener.
        tls: bool,
    },
}
