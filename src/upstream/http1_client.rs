//! One HTTP/1.1 request and its answer, over a connection that ends with it. What is asked and how long it
//! may take is left to the callers.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::net::stream::Stream;

/// Sends a request with its whole address; an answer of more than `most` bytes is an error.
pub async fn exchange(
    stream: Stream,
    mut request: Request<Bytes>,
    most: usize,
) -> io::Result<Response<Bytes>> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?;
        request.headers_mut().insert(header::HOST, host);
    }
    // Only the path goes out: the whole address is for proxies.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let answered = async {
        let response = send.send_request(request.map(Full::new)).await;
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let mut answered = pin!(answered);
    tokio::select! {
        // What has arrived counts, though the connection be over.
        biased;
        answer = &mut answered => answer,
        // Its error, if it has one, is the request's too.
        _ = connection => answered.await,
    }
}
