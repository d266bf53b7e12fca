//! A connected TCP or Unix socket, and the address of the client on it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A connected socket that belongs to no runtime, on its way to another thread. It is non-blocking.
#[derive(Debug)]
pub enum StdSocket {
    /// TCP.
    Tcp(StdTcpStream),
    /// A Unix socket.
    Unix(StdUnixStream),
}

/// The client at the other end of a socket. The text of a TCP client is its address and port, that
/// of a Unix client is `unix:` with its process id, if known, and its user id:
/// `unix:pid=17,uid=1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// Address and port.
    Tcp(SocketAddr),
    /// The process that connected.
    Unix {
        /// Process id. `None`: the system does not report it.
        pid: Option<i32>,
        /// User id.
        uid: u32,
    },
}

impl Socket {
    /// Registers a socket with the runtime of this thread.
    ///
    /// # Errors
    /// The runtime cannot use the socket.
    pub fn from_std(socket: StdSocket) -> io::Result<Socket> {
        Ok(match socket {
            StdSocket::Tcp(socket) => Socket::Tcp(TcpStream::from_std(socket)?),
            StdSocket::Unix(socket) => Socket::Unix(UnixStream::from_std(socket)?),
        })
    }

    /// Removes the socket from its runtime.
    ///
    /// # Errors
    /// The runtime cannot release the socket.
    pub fn into_std(self) -> io::Result<StdSocket> {
        Ok(match self {
            Socket::Tcp(socket) => StdSocket::Tcp(socket.into_std()?),
            Socket::Unix(socket) => StdSocket::Unix(socket.into_std()?),
        })
    }

    /// Returns the client of an accepted socket. `None`: the client is gone.
    pub fn client_address(&self) -> Option<ClientAddress> {
        match self {
            Socket::Tcp(socket) => socket.peer_addr().ok().map(ClientAddress::Tcp),
            Socket::Unix(socket) => {
                let client = socket.peer_cred().ok()?;
                let (pid, uid) = (client.pid(), client.uid());
                Some(ClientAddress::Unix { pid, uid })
            }
        }
    }

    /// Waits for bytes and copies the first ones without consuming them. Returns their number; 0 is
    /// the end of the stream.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn peek(&self, first: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.peek(first).await,
            Socket::Unix(socket) => {
                let mut peek = || {
                    let (_, count) = rustix::net::recv(socket, &mut *first, RecvFlags::PEEK)?;
                    Ok(count)
                };
                socket.async_io(Interest::READABLE, &mut peek).await
            }
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddress::Tcp(address) => address.fmt(f),
            ClientAddress::Unix { pid, uid } => {
                f.write_str("unix:")?;
                if let Some(pid) = pid {
                    write!(f, "pid={pid},")?;
                }
                write!(f, "uid={uid}")
            }
        }
    }
}

macro_rules! with_inner {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_inner!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
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
