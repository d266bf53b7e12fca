//! Distribution of accepted connections over the workers.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tracing::warn;

use crate::limits;
use crate::metrics::Metrics;
use crate::net::socket::Socket;
use crate::server::ListenerKind;
use crate::server::listener::{BoundListener, Listener};
use crate::server::worker::WorkerSender;

/// Accepts the connections of one listener and sends them to the workers.
pub struct ConnectionAcceptor {
    listener: Listener,
    kind: ListenerKind,
    workers: Arc<[WorkerSender]>,
    max_connections: usize,
    metrics: Arc<Metrics>,
}

impl ConnectionAcceptor {
    /// Creates the acceptor of a listener. It sends the connections to these workers, at most
    /// `max_connections` over all listeners of this kind.
    ///
    /// # Errors
    /// The runtime cannot use the listener.
    pub fn new(
        listener: BoundListener,
        kind: ListenerKind,
        workers: Arc<[WorkerSender]>,
        max_connections: usize,
        metrics: Arc<Metrics>,
    ) -> io::Result<ConnectionAcceptor> {
        Ok(ConnectionAcceptor {
            listener: Listener::new(listener)?,
            kind,
            workers,
            max_connections,
            metrics,
        })
    }

    /// Accepts connections until `close` returns, then closes the listener.
    ///
    /// Connections that the kernel has already accepted are served too, so no client is reset after
    /// it has connected (S2). The file of a Unix socket is removed before the last of them is served.
    pub async fn accept(mut self, close: impl Future<Output = ()>) {
        let mut close = pin!(close);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = close.as_mut() => break,
            };
            match accepted {
                Ok(socket) => self.dispatch(socket),
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
        self.listener.remove_file();
        let accept_pending =
            || tokio::time::timeout(Duration::from_millis(1), self.listener.accept());
        while let Ok(Ok(socket)) = accept_pending().await {
            self.dispatch(socket);
        }
    }

    /// Sends a connection to the worker with the fewest connections.
    fn dispatch(&self, socket: Socket) {
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

fn set_socket_options(socket: &Socket) -> io::Result<()> {
    let Socket::Tcp(socket) = socket else {
        // The kernel reports the end of the other process at once.
        return Ok(());
    };
    socket.set_nodelay(true)?;
    let kernel = SockRef::from(socket);
    kernel.set_tcp_user_timeout(Some(limits::STALLED_SOCKET_TIME))?;
    kernel.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(limits::SILENT_SOCKET_TIME)
            .with_interval(limits::SILENT_SOCKET_TIME),
    )
}
