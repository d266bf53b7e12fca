//! One client connection: TLS if configured, then HTTP/2 or HTTP/1.1, told apart by ALPN or by
//! the first bytes. All of it within [`limits::HANDSHAKE_TIME`] up to the first request.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tracing::debug;
use tracing::field::display;

use crate::call_log::finished_call::ClientInfo;
use crate::driver::WorkerContext;
use crate::limits;
use crate::net::sniff::{ENOUGH, Protocol, sniff};
use crate::net::stream::Stream;
use crate::net::tls::server::Acceptor;
use crate::server::admin::router::Pages;
use crate::server::handshake_timeout::in_time;
use crate::server::http2::{Http2Options, Serving};
use crate::server::{ListenerKind, http1, http2};

/// What all client connections of one worker share.
pub(super) struct Clients {
    pub(super) ctx: Rc<WorkerContext>,
    pub(super) pages: Arc<Pages>,
    /// TLS towards clients, if any.
    pub(super) tls: Option<Arc<Acceptor>>,
    pub(super) http2: Http2Options,
}

/// Serves the connection to its end.
pub(super) async fn serve(clients: Rc<Clients>, door: ListenerKind, socket: TcpStream) {
    let until = Instant::now() + limits::HANDSHAKE_TIME;
    // An error means that the client is gone, which the handshake finds out.
    let peer = socket.peer_addr().ok();
    let ended = match in_time(&clients.ctx, until, open(&clients, door, socket)).await {
        Ok((Protocol::Http2, stream)) => {
            let told = peer.filter(|_| clients.ctx.asks_who());
            let who = told.map(|address| {
                let name = stream.client_name();
                Arc::new(ClientInfo { address, name })
            });
            let by = Serving {
                ctx: &clients.ctx,
                pages: &clients.pages,
                door,
                peer,
            };
            http2::serve(by, &clients.http2, stream, who, until).await
        }
        Ok((Protocol::Http1, stream)) => {
            // Boxed: few connections are of this kind, and all would keep the room for it.
            Box::pin(http1::serve(&clients.ctx, &clients.pages, stream)).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        clients.ctx.count().handshake_failures.inc();
        let client_address = peer.map(display);
        debug!(client_address, %error, "client connection closed before its first request");
    }
}

async fn open(
    clients: &Clients,
    door: ListenerKind,
    socket: TcpStream,
) -> io::Result<(Protocol, Stream)> {
    let plain = door == ListenerKind::Pages { tls: false };
    let Some(tls) = clients.tls.as_ref().filter(|_| !plain) else {
        return Ok((first_bytes(&socket).await?, Stream::Tcp(socket)));
    };
    let stream = tls.accept(socket).await?;
    // No ALPN means HTTP/1.1, as everywhere.
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((protocol, Stream::TlsServer(Box::new(stream))))
}

async fn first_bytes(socket: &TcpStream) -> io::Result<Protocol> {
    let mut first = [0; ENOUGH];
    let mut pause = Duration::from_millis(5);
    loop {
        let n = socket.peek(&mut first).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = sniff(&first[..n]) {
            return Ok(protocol);
        }
        // A preface in pieces. What was peeked at is still there, so peeking again at once would
        // spin, and thousands that never go on are not to cost more than a few looks each (S1).
        sleep(pause).await;
        pause *= 2;
    }
}
