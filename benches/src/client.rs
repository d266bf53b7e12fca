//! An HTTP/2 client connection and verified unary gRPC calls on it.
//!
//! Invariant: `Ok` means HTTP status 200, `grpc-status` 0 in the trailers and a complete body.
//! The caller verifies the content of the body (`etcdpb`).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderValue, Method, Request, StatusCode};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Address of a server, with the TLS configuration for it.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    /// With TLS: trusted CAs and client certificate. Its ALPN protocols must contain `h2`.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Receive windows that a client advertises, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// Window of each stream.
    pub(crate) stream: u32,
    /// Window of the whole connection.
    pub(crate) connection: u32,
}

/// Initial windows of HTTP/2. Small calls never fill them.
pub(crate) const DEFAULT_WINDOWS: Windows = Windows {
    stream: 65_535,
    connection: 65_535,
};

/// Handle of an open connection. Clones share the connection, which closes with the last clone.
#[derive(Clone)]
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
}

impl Client {
    /// Connects and starts the task that drives the connection on the current runtime.
    pub(crate) async fn open(address: &Address, windows: Windows) -> Result<Client, String> {
        let socket = TcpStream::connect(address.socket).await;
        Client::from_tcp(socket, address, windows).await
    }

    /// Like [`Client::open`], from a local IPv4 address. `address` must be IPv4 too.
    pub(crate) async fn open_from(
        source: IpAddr,
        address: &Address,
        windows: Windows,
    ) -> Result<Client, String> {
        let socket = TcpSocket::new_v4().map_err(|e| e.to_string())?;
        socket
            .bind(SocketAddr::new(source, 0))
            .map_err(|e| format!("bind {source}: {e}"))?;
        let socket = socket.connect(address.socket).await;
        Client::from_tcp(socket, address, windows).await
    }

    async fn from_tcp(
        socket: io::Result<TcpStream>,
        address: &Address,
        windows: Windows,
    ) -> Result<Client, String> {
        let socket = socket.map_err(|e| format!("connect {}: {e}", address.socket))?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        let Some(tls) = &address.tls else {
            return Client::from_transport(socket, windows).await;
        };
        let name = ServerName::from(address.socket.ip());
        let socket = TlsConnector::from(tls.clone())
            .connect(name, socket)
            .await
            .map_err(|e| format!("TLS handshake: {e}"))?;
        Client::from_transport(socket, windows).await
    }

    async fn from_transport<S>(socket: S, windows: Windows) -> Result<Client, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            // The loads cause many small responses. They are not an attack.
            .data_frame_budget(usize::MAX)
            .handshake(socket)
            .await
            .map_err(|e| format!("handshake: {e}"))?;
        // An error of the connection is reported by the calls on it.
        tokio::spawn(connection);
        Ok(Client { sender })
    }

    /// Sends `frame` with `head` (from [`head`]) and writes the body of the response to `body`,
    /// which is cleared first.
    pub(crate) async fn unary(
        &mut self,
        head: &Request<()>,
        frame: &Bytes,
        body: &mut Vec<u8>,
    ) -> Result<(), String> {
        body.clear();
        let response = self.exchange(head, frame, body).await;
        response
            .map_err(|e| e.to_string())?
            .map_err(|error| error.to_string())
    }

    /// Opens a stream with `head`. The caller sends the request and reads the response.
    pub(crate) async fn open_stream(
        &mut self,
        head: &Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        self.sender.send_request(head.clone(), false)
    }

    /// Like [`Client::unary`], but distinguishes an error response from a broken stream or
    /// connection, and appends to `body`.
    pub(crate) async fn exchange(
        &mut self,
        head: &Request<()>,
        frame: &Bytes,
        body: &mut Vec<u8>,
    ) -> Result<Result<(), ErrorResponse>, h2::Error> {
        let (response, mut stream) = self.open_stream(head).await?;
        stream.send_data(frame.clone(), true)?;
        let (head, mut stream) = response.await?.into_parts();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk?;
            body.extend_from_slice(&chunk);
            stream.flow_control().release_capacity(chunk.len())?;
        }
        let trailers = stream.trailers().await?.unwrap_or(head.headers);
        let zero = HeaderValue::from_static("0");
        let status = trailers.get("grpc-status").cloned();
        if head.status == 200 && status == Some(zero) {
            return Ok(Ok(()));
        }
        Ok(Err(ErrorResponse {
            http: head.status,
            status,
            message: trailers.get("grpc-message").cloned(),
        }))
    }
}

/// A complete response with an HTTP status other than 200 or a `grpc-status` other than 0.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    http: StatusCode,
    status: Option<HeaderValue>,
    message: Option<HeaderValue>,
}

impl ErrorResponse {
    /// Returns the value of `grpc-status`.
    pub(crate) fn code(&self) -> Option<&[u8]> {
        self.status.as_ref().map(HeaderValue::as_bytes)
    }
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let ErrorResponse {
            http,
            status,
            message,
        } = self;
        write!(out, "HTTP {http}, grpc-status {status:?}, {message:?}")
    }
}

/// Returns the request head of a gRPC call of `path` at `address`.
pub(crate) fn head(address: &Address, path: &str) -> Result<Request<()>, String> {
    let scheme = if address.tls.is_some() {
        "https"
    } else {
        "http"
    };
    Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{}{path}", address.socket))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "etcd-edge-bench")
        .body(())
        .map_err(|e| e.to_string())
}

/// Returns a new single-threaded runtime.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
}
