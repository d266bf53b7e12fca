//! One HTTP/1.1 page of an etcd member, fetched on a connection of its own.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;

use crate::limits;
use crate::upstream::dial;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::target::Target;

/// A page of a member.
#[derive(Debug)]
pub struct Page {
    /// HTTP status.
    pub status: StatusCode,
    /// Its `content-type`, if it had one.
    pub content_type: Option<HeaderValue>,
    /// At most [`limits::PAGE_BYTES`].
    pub body: Bytes,
}

/// Fetches `path`; the caller sets the time limit.
pub async fn fetch(endpoints: &Endpoints, target: &Target, path: &str) -> io::Result<Page> {
    let tls = endpoints.tls(&target.endpoint);
    let stream = dial::connect(&target.endpoint, tls.as_ref().map(|tls| &tls.pages)).await?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let driver = tokio::task::spawn_local(connection);
    let request = Request::get(path)
        .header(header::HOST, target.authority.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = send.send_request(request).await.map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limits::PAGE_BYTES)
        .collect()
        .await
        .map_err(io::Error::other)?;
    driver.abort();
    Ok(Page {
        status: head.status,
        content_type: head.headers.get(header::CONTENT_TYPE).cloned(),
        body: body.to_bytes(),
    })
}
