//! One client connection: TLS if configured, then HTTP/2 or HTTP/1.1, detected by ALPN or by the
//! first bytes. The first request must arrive within [`limits::HANDSHAKE_TIME`].

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;
use tracing::field::display;

use crate::call_log::finished_call::ClientInfo;
use crate::driver::WorkerContext;
use crate::limits;
use crate::net::sniff::{Protocol, SNIFF_BYTES, sniff};
use crate::net::socket::Socket;
use crate::net::stream::ByteStream;
use crate::net::tls::server::Acceptor;
use crate::server::admin::router::AdminRouter;
use crate::server::handshake_timeout::with_handshake_timeout;
use crate::server::http2::{Http2Options, RequestContext};
use crate::server::{ListenerKind, http1, http2};

/// State shared by all client connections of one worker.
pub(super) struct ConnectionContext {
    pub(super) ctx: Rc<WorkerContext>,
    pub(super) admin: Arc<AdminRouter>,
    /// Client TLS, if configured.
    pub(super) tls: Option<Arc<Acceptor>>,
    pub(super) http2: Http2Options,
}

/// Serves a connection until its end.
pub(super) async fn serve(context: Rc<ConnectionContext>, listener: ListenerKind, socket: Socket) {
    let deadline = Instant::now() + limits::HANDSHAKE_TIME;
    // An error means that the client is gone. The handshake detects that too.
    let client_address = socket.client_address();
    let ended = match with_handshake_timeout(
        &context.ctx,
        deadline,
        open(&context, listener, socket),
    )
    .await
    {
        Ok((Protocol::Http2, stream)) => {
            let logged_address = client_address.filter(|_| context.ctx.needs_client_info());
            let client_info = logged_address.map(|address| {
                let name = stream.client_name();
                Arc::new(ClientInfo { address, name })
            });
            let request_context = RequestContext {
                ctx: &context.ctx,
                admin: &context.admin,
                listener,
                client_address,
            };
            http2::serve(
                request_context,
                &context.http2,
                stream,
                client_info,
                deadline,
            )
            .await
        }
        Ok((Protocol::Http1, stream)) => {
            // Boxed: HTTP/1.1 is rare, and every connection would reserve the memory of the future.
            Box::pin(http1::serve(&context.ctx, &context.admin, stream)).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        context.ctx.counters().handshake_failures.inc();
        let client_address = client_address.map(display);
        debug!(client_address, %error, "client connection closed before its first request");
    }
}

async fn open(
    context: &ConnectionContext,
    listener: ListenerKind,
    socket: Socket,
) -> io::Result<(Protocol, ByteStream)> {
    let plain = listener == ListenerKind::Admin { tls: false };
    let Some(tls) = context.tls.as_ref().filter(|_| !plain) else {
        return Ok((first_bytes(&socket).await?, ByteStream::Plain(socket)));
    };
    let stream = tls.accept(socket).await?;
    // Without ALPN, the protocol is HTTP/1.1, as usual for TLS servers.
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((protocol, ByteStream::TlsServer(Box::new(stream))))
}

async fn first_bytes(socket: &Socket) -> io::Result<Protocol> {
    let mut first = [0; SNIFF_BYTES];
    let mut pause = Duration::from_millis(5);
    loop {
        let n = socket.peek(&mut first).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = sniff(&first[..n]) {
            return Ok(protocol);
        }
        // Only a part of the preface has arrived. An immediate second peek would spin, because the
        // peeked bytes stay in the socket. The pause doubles, so that thousands of clients that
        // never continue cost only a few peeks each (S1).
        sleep(pause).await;
        pause *= 2;
    }
}
