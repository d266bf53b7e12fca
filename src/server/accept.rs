//! Listening sockets, and the distribution of accepted connections over the workers.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::limits;
use crate::metrics::Metrics;
use crate::server::ListenerKind;
use crate::server::worker::WorkerSender;

/// Connections that the kernel may queue before they are accepted. The kernel applies its own
/// limit.
const BACKLOG: i32 = 4096;

/// Opens a listening socket on `host:port`. A host name is resolved; an empty host means all
/// addresses. The port can be bound again immediately after the process ends.
///
/// # Errors
/// The address is invalid, or none of its addresses can be bound.
pub fn listen(address: &str) -> io::Result<StdListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in candidates(address)? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn candidates(address: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let port: u16 = port
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "bad port"))?;
    if host.is_empty() {
        // The first address covers IPv4 and IPv6 if the kernel supports IPv6.
        return Ok(vec![
            SocketAddr::from(([0; 16], port)),
            SocketAddr::from(([0; 4], port)),
        ]);
    }
    // The resolver knows the names of zones, and no brackets.
    let host = host.trim_matches(['[', ']']);
    Ok((host, port).to_socket_addrs()?.collect())
}

fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.ip() == std::net::Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts the connections of one listener and sends them to the workers.
pub struct ConnectionAcceptor {
    /// The listening socket.
    pub listener: TcpListener,
    /// Kind of the listener.
    pub kind: ListenerKind,
    /// All workers.
    pub workers: Arc<[WorkerSender]>,
    /// Maximum open connections of all listeners of this kind.
    pub max_connections: usize,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
}

impl ConnectionAcceptor {
    /// Accepts connections until `close` returns, then closes the listener.
    ///
    /// Connections that the kernel has already accepted are served too, so no client is reset after
    /// its TCP handshake (S2).
    pub async fn accept(self, close: impl Future<Output = ()>) {
        let mut close = pin!(close);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = close.as_mut() => break,
            };
            match accepted {
                Ok((socket, _)) => self.dispatch(socket),
                Err(error) => {
                    // Most likely the process has no free file descriptor. An immediate retry would
                    // spin.
                    warn!(%error, "accept failed");
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(50)) => {}
                        () = close.as_mut() => break,
                    }
                }
            }
        }
        let accept_pending =
            || tokio::time::timeout(Duration::from_millis(1), self.listener.accept());
        while let Ok(Ok((socket, _))) = accept_pending().await {
            self.dispatch(socket);
        }
    }

    /// Sends a connection to the worker with the fewest connections.
    fn dispatch(&self, socket: TcpStream) {
        let open: usize = self.workers.iter().map(|w| w.open(self.kind)).sum();
        let load =
            |worker: &&WorkerSender| (worker.open(self.kind), worker.open(ListenerKind::Clients));
        let least_loaded = self.workers.iter().min_by_key(load);
        let (Some(worker), true) = (least_loaded, open < self.max_connections) else {
            match self.kind {
                ListenerKind::Clients => self.metrics.connections_refused.inc(),
                ListenerKind::Admin { .. } => self.metrics.admin_connections_refused.inc(),
            }
            return;
        };
        let sent = set_socket_options(&socket)
            .and_then(|()| worker.send_connection(socket.into_std()?, self.kind));
        if let Err(error) = sent {
            // The client is gone, or the worker has stopped. No client waits for this connection.
            warn!(%error, "connection dropped at accept");
        }
    }
}

fn set_socket_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let kernel = SockRef::from(socket);
    kernel.set_tcp_user_timeout(Some(limits::STALLED_SOCKET_TIME))?;
    kernel.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(limits::SILENT_SOCKET_TIME)
            .with_interval(limits::SILENT_SOCKET_TIME),
    )
}
