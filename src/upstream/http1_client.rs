//! HTTP/1.1 client with one connection per request, for pages of etcd members and for the trace
//! collector.
//!
//! Callers set the time limit.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::limits;
use crate::net::stream::ByteStream;
use crate::upstream::dial;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::target::EndpointTarget;

/// A page of an etcd member.
#[derive(Debug)]
pub struct EtcdPage {
    /// HTTP status.
    pub status: StatusCode,
    /// `content-type` header, if the response has one.
    pub content_type: Option<HeaderValue>,
    /// At most [`limits::MEMBER_METRICS_BYTES`].
    pub body: Bytes,
}

/// Fetches the page at `path` from a member over a new connection.
///
/// # Errors
/// The connection failed, `path` is no valid path, or the page is too large.
pub async fn fetch_page(
    endpoints: &Endpoints,
    target: &EndpointTarget,
    path: &str,
) -> io::Result<EtcdPage> {
    let tls = endpoints.tls(&target.endpoint);
    let stream = dial::connect(
        &target.endpoint,
        tls.as_ref().map(|tls| (&tls.pages, &*tls.counts)),
    )
    .await?;
    let uri = Uri::builder()
        .scheme(target.scheme.clone())
        .authority(target.authority.clone())
        .path_and_query(path);
    let uri = uri.build().map_err(io::Error::other)?;
    let request = Request::get(uri).body(Bytes::new());
    let request = request.map_err(io::Error::other)?;
    let (head, body) = exchange(stream, request, limits::MEMBER_METRICS_BYTES)
        .await?
        .into_parts();
    Ok(EtcdPage {
        status: head.status,
        content_type: head.headers.get(header::CONTENT_TYPE).cloned(),
        body,
    })
}

/// Sends a request with an absolute URI and returns the response. The connection ends with it.
///
/// # Errors
/// The connection failed, or the body of the response is longer than `max_body` bytes.
pub async fn exchange(
    stream: ByteStream,
    mut request: Request<Bytes>,
    max_body: usize,
) -> io::Result<Response<Bytes>> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?;
        request.headers_mut().insert(header::HOST, host);
    }
    // Only the path is sent: an absolute URI is for proxies.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let response = async {
        let response = send.send_request(request.map(Full::new)).await;
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, max_body).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let mut response = pin!(response);
    tokio::select! {
        // A response that has arrived counts even if the connection has ended.
        biased;
        result = &mut response => result,
        // If the connection ends with an error, the request fails too.
        _ = connection => response.await,
    }
}
