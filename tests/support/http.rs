//! One HTTP/1.1 request on its own connection: etcd's health and metrics, the proxy's pages.

use std::io::{Error, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A response, read to the end of the connection.
#[derive(Debug)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// Status line and header lines.
    pub head: String,
    /// The body, decoded if it was chunked.
    pub body: String,
}

/// Sends a GET for a path to `host:port` in plain text.
pub fn get(address: &str, path: &str) -> std::io::Result<HttpResponse> {
    request(address, "GET", path)
}

/// Sends a request without a body.
pub fn request(address: &str, method: &str, path: &str) -> std::io::Result<HttpResponse> {
    let mut stream = TcpStream::connect(address)?;
    // A profile takes tens of seconds if a debug build runs on a busy machine.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| Error::other("no head"))?;
    let (head, body) = (String::from_utf8_lossy(&all[..end]), &all[end + 4..]);
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = match chunked {
        true => decode_chunks(body).ok_or_else(|| Error::other("the body is not chunked"))?,
        false => body.to_vec(),
    };
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok());
    Ok(HttpResponse {
        status: status.ok_or_else(|| Error::other("no status"))?,
        body: String::from_utf8_lossy(&body).into_owned(),
        head: head.into_owned(),
    })
}

/// Decodes a chunked body. Returns `None` if a chunk is malformed or the last chunk is missing.
fn decode_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}
