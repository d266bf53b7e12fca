//! One dial: name lookup, connect, TLS. Names are resolved anew each time and every address is
//! tried (E1); the whole is bounded by the caller.

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
use crate::net::stream::Stream;
use crate::upstream::endpoint::{Address, Endpoint};

/// A connected stream to the endpoint, under TLS if `tls` is given, with what is counted of it.
pub async fn connect(
    endpoint: &Endpoint,
    tls: Option<(&Arc<ClientConfig>, &TlsSide)>,
) -> io::Result<Stream> {
    match &endpoint.address {
        Address::Unix(path) => {
            let unix = UnixStream::connect(path).await?;
            match tls {
                None => Ok(Stream::Unix(unix)),
                Some((config, side)) => {
                    let name = server_name("localhost")?;
                    let handshake = side.handshake();
                    let tls = TlsConnector::from(config.clone())
                        .connect(name, unix)
                        .await?;
                    handshake.done();
                    Ok(Stream::TlsUnix(Box::new(tls)))
                }
            }
        }
        Address::Tcp { host, port } => {
            let tcp = connect_tcp(host, *port).await?;
            match tls {
                None => Ok(Stream::Tcp(tcp)),
                Some((config, side)) => {
                    let name = server_name(host)?;
                    let handshake = side.handshake();
                    let tls = TlsConnector::from(config.clone())
                        .connect(name, tcp)
                        .await?;
                    handshake.done();
                    Ok(Stream::TlsClient(Box::new(tls)))
                }
            }
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    // One that accepts and then says nothing uses up the caller's time: always first, it would
    // keep the others from ever being tried.
    fastrand::shuffle(&mut addresses);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    // A single address may use the caller's whole time.
    let share = if addresses.len() == 1 {
        limits::DIAL_TIME
    } else {
        limits::DIAL_ADDRESS_TIME
    };
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Frames are batched above; waiting for more in the kernel only adds delay.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(e)) => last = e,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}
