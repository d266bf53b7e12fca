//! The listener, and which worker gets a connection.

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

/// Connections the kernel keeps for us before they are accepted; it caps this at its own limit.
const BACKLOG: i32 = 4096;

/// A listening socket on `host:port`; a name is resolved, an empty host means every address.
/// The port can be bound again at once after a stop.
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

/// One listener, and where its connections go.
pub struct ConnectionAcceptor {
    /// It listens.
    pub listener: TcpListener,
    /// What is served to who comes through it.
    pub door: ListenerKind,
    /// Every worker.
    pub workers: Arc<[WorkerSender]>,
    /// Connections that all listeners of this kind may have open.
    pub most: usize,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
}

impl ConnectionAcceptor {
    /// Accepts until `closes` returns, and then closes the listener; what the kernel has already accepted
    /// for us is taken all the same, so that nobody who is through the handshake is reset (S2).
    pub async fn accept(self, closes: impl Future<Output = ()>) {
        let mut closes = pin!(closes);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = closes.as_mut() => break,
            };
            match accepted {
                Ok((socket, _)) => self.hand_over(socket),
                Err(error) => {
                    // Out of descriptors, most likely: spinning would not bring any back.
                    warn!(%error, "accept failed");
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(50)) => {}
                        () = closes.as_mut() => break,
                    }
                }
            }
        }
        let rest = || tokio::time::timeout(Duration::from_millis(1), self.listener.accept());
        while let Ok(Ok((socket, _))) = rest().await {
            self.hand_over(socket);
        }
    }

    /// To the worker that has the fewest.
    fn hand_over(&self, socket: TcpStream) {
        let open: usize = self.workers.iter().map(|w| w.open(self.door)).sum();
        let busy =
            |worker: &&WorkerSender| (worker.open(self.door), worker.open(ListenerKind::Clients));
        let least = self.workers.iter().min_by_key(busy);
        let (Some(worker), true) = (least, open < self.most) else {
            match self.door {
                ListenerKind::Clients => self.metrics.connections_refused.inc(),
                ListenerKind::Pages { .. } => self.metrics.page_connections_refused.inc(),
            }
            return;
        };
        let given = prepare(&socket).and_then(|()| worker.give(socket.into_std()?, self.door));
        if let Err(error) = given {
            // The client is gone again, or the worker is at its end; either way nobody waits.
            warn!(%error, "connection dropped at accept");
        }
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
