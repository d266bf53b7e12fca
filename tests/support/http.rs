//! One HTTP/1.1 request on a connection of its own: etcd's health and metrics, the proxy's pages.

use std::io::{Error, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// Status line and header lines.
    pub head: String,
    /// The body, not decoded.
    pub body: String,
}

/// GETs a path from `host:port` in plain text.
pub fn get(address: &str, path: &str) -> std::io::Result<Page> {
    request(address, "GET", path)
}

/// Sends a request without a body.
pub fn request(address: &str, method: &str, path: &str) -> std::io::Result<Page> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all);
    let (head, body) = all
        .split_once("\r\n\r\n")
        .ok_or_else(|| Error::other("no head"))?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok());
    Ok(Page {
        status: status.ok_or_else(|| Error::other("no status"))?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
