//! Establishes one connection to an endpoint: name lookup, connect, TLS.
//!
//! Names are resolved at each dial, and every address is tried (E1). The caller limits the total
//! time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limits;
use crate::metrics::TlsSide;
use crate::net::socket::Socket;
use crate::net::stream::ByteStream;
use crate::upstream::endpoint::{Address, Endpoint, without_zone};

/// Connects to an endpoint. `tls` is the configuration and the metrics of TLS, or `None` for
/// plaintext.
///
/// # Errors
/// No address accepts a connection, or the TLS handshake failed.
pub async fn connect(
    endpoint: &Endpoint,
    tls: Option<(&Arc<ClientConfig>, &TlsSide)>,
) -> io::Result<ByteStream> {
    let (socket, host) = match &endpoint.address {
        Address::Unix(path) => (Socket::Unix(UnixStream::connect(path).await?), "localhost"),
        Address::Tcp { host, port } => (Socket::Tcp(connect_tcp(host, *port).await?), &**host),
    };
    let Some((config, side)) = tls else {
        return Ok(ByteStream::Plain(socket));
    };
    let name = server_name(host)?;
    let handshake = side.begin_handshake();
    let tls = TlsConnector::from(config.clone())
        .connect(name, socket)
        .await?;
    handshake.complete();
    Ok(ByteStream::TlsClient(Box::new(tls)))
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    // A host that accepts and then never responds uses all the time of the caller. If it were
    // always first, the other addresses would never be tried.
    fastrand::shuffle(&mut addresses);
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    // A single address may use all the time of the caller.
    let time_limit = if addresses.len() == 1 {
        limits::DIAL_TIME
    } else {
        limits::DIAL_ADDRESS_TIME
    };
    for address in addresses {
        match timeout(time_limit, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Frames are batched above. A delay in the kernel would only add latency.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(e)) => last_error = e,
            Err(_) => last_error = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last_error)
}

/// Returns the name that the certificate of the endpoint must contain. Certificates contain
/// addresses without zones.
fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(without_zone(host).to_owned())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

#[cfg(test)]
mod tests {
    use super::server_name;

    #[test]
    fn server_name_has_no_zone() {
        let name = |host| server_name(host).unwrap().to_str().into_owned();
        assert_eq!(name("etcd"), "etcd");
        assert_eq!(name("fe80::1%eth0"), "fe80::1");
    }
}
