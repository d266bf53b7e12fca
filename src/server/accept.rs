//! The listener, and which worker gets a connection.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::limits;
use crate::metrics::Metrics;
use crate::server::worker::WorkerHandle;

/// Connections the kernel keeps for us before they are accepted; it caps this at its own limit.
const BACKLOG: i32 = 4096;

/// A listening socket on `host:port`; a name is resolved, an empty host means every address.
/// The port can be bound again at once after a stop.
pub fn listen(address: &str) -> io::Result<StdListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in candidates(address)? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn candidates(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Some(port) = address.strip_prefix(':') {
        let port: u16 = port
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "bad port"))?;
        // The first listens on both families where the kernel has IPv6.
        return Ok(vec![
            SocketAddr::from(([0; 16], port)),
            SocketAddr::from(([0; 4], port)),
        ]);
    }
    Ok(address.to_socket_addrs()?.collect())
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

/// Accepts until dropped and gives each connection to the worker with the fewest.
pub async fn accept(
    listener: &TcpListener,
    workers: &[WorkerHandle],
    most: usize,
    metrics: &Arc<Metrics>,
) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => hand_over(socket, workers, most, metrics),
            Err(error) => {
                // Out of descriptors, most likely: spinning would not bring any back.
                warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Takes what the kernel has already accepted for us, so that closing the listener resets
/// nobody who is through the handshake (S2).
pub async fn accept_rest(
    listener: &TcpListener,
    workers: &[WorkerHandle],
    most: usize,
    metrics: &Arc<Metrics>,
) {
    while let Ok(Ok((socket, _))) =
        tokio::time::timeout(Duration::from_millis(1), listener.accept()).await
    {
        hand_over(socket, workers, most, metrics);
    }
}

fn hand_over(socket: TcpStream, workers: &[WorkerHandle], most: usize, metrics: &Arc<Metrics>) {
    let open: usize = workers.iter().map(WorkerHandle::connections).sum();
    let least = workers.iter().min_by_key(|w| w.connections());
    let (Some(worker), true) = (least, open < most) else {
        metrics.connections_refused.inc();
        return;
    };
    if let Err(error) = prepare(&socket).and_then(|()| worker.give(socket.into_std()?)) {
        // The client is gone again, or the worker is at its end; either way nobody waits.
        warn!(%error, "connection dropped at accept");
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let kernel = SockRef::from(socket);
    kernel.set_tcp_user_timeout(Some(limits::STALLED_SOCKET_TIME))?;
    kernel.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(limits::SILENT_SOCKET_TIME)
            .with_interval(limits::SILENT_SOCKET_TIME),
    )
}
