//! A connected byte stream over TCP or a Unix socket, plain or with TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::socket::Socket;
use crate::net::tls::certificate;

/// A connected byte stream. The TLS variants are boxed because their state is large.
#[derive(Debug)]
pub enum ByteStream {
    /// No TLS.
    Plain(Socket),
    /// TLS with this side as the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<Socket>>),
    /// TLS with this side as the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl ByteStream {
    /// Reports whether the stream has no TLS: reads and writes use the socket directly.
    pub fn is_plain(&self) -> bool {
        matches!(self, ByteStream::Plain(_))
    }

    /// Returns the Common Name of the client certificate, if there is one.
    pub fn client_name(&self) -> Option<String> {
        let ByteStream::TlsServer(stream) = self else {
            return None;
        };
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        certificate::common_name(certificate)
            .ok()
            .filter(|name| !name.is_empty())
    }
}

macro_rules! with_inner {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            ByteStream::Plain($inner) => $call,
            ByteStream::TlsServer($inner) => $call,
            ByteStream::TlsClient($inner) => $call,
        }
    };
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_inner!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        with_inner!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_inner!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_inner!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
