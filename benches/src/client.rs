//! One HTTP/2 client connection and checked unary gRPC calls on it.
//!
//! Invariant: `Ok` means HTTP status 200, `grpc-status` 0 in the trailers and a complete body.
//! What the body says is judged by the caller (`etcdpb`).

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

/// Where a server listens, and how one speaks to it.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    /// With TLS, what the client trusts and shows. Its protocols must name `h2`.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Receive windows that a client offers, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// Of each stream.
    pub(crate) stream: u32,
    /// Of the whole connection.
    pub(crate) connection: u32,
}

/// HTTP/2's own initial windows, which small calls never fill.
pub(crate) const DEFAULT_WINDOWS: Windows = Windows {
    stream: 65_535,
    connection: 65_535,
};

/// A handle on an open connection; clones share it. It closes with the last clone.
#[derive(Clone)]
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
}

impl Client {
    /// Connects and starts the task that drives the connection on the current runtime.
    pub(crate) async fn open(address: &Address, windows: Windows) -> Result<Client, String> {
        let socket = TcpStream::connect(address.socket).await;
        Client::greet(socket, address, windows).await
    }

    /// Like [`Client::open`], from a local address, which must be of the same family.
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
        Client::greet(socket, address, windows).await
    }

    async fn greet(
        socket: io::Result<TcpStream>,
        address: &Address,
        windows: Windows,
    ) -> Result<Client, String> {
        let socket = socket.map_err(|e| format!("connect {}: {e}", address.socket))?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        let Some(tls) = &address.tls else {
            return Client::over(socket, windows).await;
        };
        let name = ServerName::from(address.socket.ip());
        let socket = TlsConnector::from(tls.clone())
            .connect(name, socket)
            .await
            .map_err(|e| format!("TLS handshake: {e}"))?;
        Client::over(socket, windows).await
    }

    async fn over<S>(socket: S, windows: Windows) -> Result<Client, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            // Many small answers are what is asked for here, not an attack.
            .data_frame_budget(usize::MAX)
            .handshake(socket)
            .await
            .map_err(|e| format!("handshake: {e}"))?;
        // A broken connection shows itself in the calls on it.
        tokio::spawn(connection);
        Ok(Client { sender })
    }

    /// Sends `frame` with `head` (from [`head`]) and collects the answer's body into `body`,
    /// which is emptied first.
    pub(crate) async fn unary(
        &mut self,
        head: &Request<()>,
        frame: &Bytes,
        body: &mut Vec<u8>,
    ) -> Result<(), String> {
        body.clear();
        let answer = self.exchange(head, frame, body).await;
        answer
            .map_err(|e| e.to_string())?
            .map_err(|refusal| refusal.to_string())
    }

    /// Opens a stream with `head`, and leaves the rest to the caller.
    pub(crate) async fn begin(
        &mut self,
        head: &Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        self.sender.send_request(head.clone(), false)
    }

    /// Like [`Client::unary`], but tells a refusal from a stream or a connection that broke, and
    /// appends to `body`.
    pub(crate) async fn exchange(
        &mut self,
        head: &Request<()>,
        frame: &Bytes,
        body: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, h2::Error> {
        let (answer, mut stream) = self.begin(head).await?;
        stream.send_data(frame.clone(), true)?;
        let (head, mut stream) = answer.await?.into_parts();
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
        Ok(Err(Refusal {
            http: head.status,
            status,
            message: trailers.get("grpc-message").cloned(),
        }))
    }
}

/// A whole answer that is not OK.
#[derive(Debug)]
pub(crate) struct Refusal {
    http: StatusCode,
    status: Option<HeaderValue>,
    message: Option<HeaderValue>,
}

impl Refusal {
    /// What `grpc-status` says.
    pub(crate) fn code(&self) -> Option<&[u8]> {
        self.status.as_ref().map(HeaderValue::as_bytes)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let Refusal {
            http,
            status,
            message,
        } = self;
        write!(out, "HTTP {http}, grpc-status {status:?}, {message:?}")
    }
}

/// The request head of a gRPC call of `path` at `address`.
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

/// A fresh single-threaded runtime.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
}
