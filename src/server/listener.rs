//! Listening sockets for clients and pages: TCP ports and Unix sockets.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::net::socket::Socket;
use crate::server::socket_file::{BACKLOG, SocketFile};

/// An address to listen on. Its `Display` form is that of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// The `host:port` of a TCP port. The host is a name, an address, an IPv6 address in brackets
    /// with an optional zone (`[fe80::1%eth0]`), or empty (every address). Port 0 lets the system
    /// choose.
    Tcp(String),
    /// The path of a Unix socket. A relative path starts at the working directory.
    Unix(PathBuf),
}

/// A bound listener that does not belong to a runtime yet. Dropping it removes the file of a Unix
/// socket.
pub enum BoundListener {
    /// A TCP port.
    Tcp(StdTcpListener),
    /// A Unix socket and its file.
    Unix(StdUnixListener, SocketFile),
}

/// A listener of the runtime.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Option<SocketFile>),
}

impl BoundListener {
    /// Binds an address. A host name is resolved. A TCP port can be bound again immediately after
    /// the process ends. The file of a Unix socket gets the permissions `mode`; a file that a
    /// process left behind is replaced.
    ///
    /// # Errors
    /// The address is invalid or in use, none of the addresses of the host can be bound, or the
    /// path of a Unix socket exists and is not a socket.
    pub fn bind(address: &ListenAddress, mode: u32) -> io::Result<BoundListener> {
        match address {
            ListenAddress::Tcp(address) => BoundListener::bind_tcp(address),
            ListenAddress::Unix(path) => {
                let (listener, file) = SocketFile::bind(path, mode)?;
                Ok(BoundListener::Unix(listener, file))
            }
        }
    }

    /// Binds a `host:port`, in the form of [`ListenAddress::Tcp`].
    ///
    /// # Errors
    /// The errors of [`bind`](BoundListener::bind).
    pub fn bind_tcp(address: &str) -> io::Result<BoundListener> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for address in candidates(address)? {
            match bind_tcp(address) {
                Ok(listener) => return Ok(BoundListener::Tcp(listener)),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Returns the address, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// The system does not report the address.
    pub fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            BoundListener::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?.to_string()),
            BoundListener::Unix(_, file) => ListenAddress::Unix(file.path().to_owned()),
        })
    }
}

impl Listener {
    /// Registers a listener with the runtime of this thread.
    ///
    /// # Errors
    /// The runtime cannot use the listener.
    pub(super) fn new(bound: BoundListener) -> io::Result<Listener> {
        Ok(match bound {
            BoundListener::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            BoundListener::Unix(listener, file) => {
                Listener::Unix(UnixListener::from_std(listener)?, Some(file))
            }
        })
    }

    /// Returns the next connection.
    ///
    /// # Errors
    /// The errors of `accept`.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Listener::Tcp(listener) => Socket::Tcp(listener.accept().await?.0),
            Listener::Unix(listener, _) => Socket::Unix(listener.accept().await?.0),
        })
    }

    /// Removes the file of a Unix socket, so that no further client connects.
    pub(super) fn remove_file(&mut self) {
        if let Listener::Unix(_, file) = self {
            *file = None;
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => f.write_str(address),
            ListenAddress::Unix(path) if path.is_absolute() => {
                write!(f, "unix://{}", path.display())
            }
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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

fn bind_tcp(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = socket2::Socket::new(
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
