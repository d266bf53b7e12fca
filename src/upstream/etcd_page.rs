//! One HTTP/1.1 page of an etcd member, fetched on a connection of its own.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};

use crate::limits;
use crate::upstream::dial;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::http1_client::exchange;
use crate::upstream::target::Target;

/// A page of a member.
#[derive(Debug)]
pub struct EtcdPage {
    /// HTTP status.
    pub status: StatusCode,
    /// Its `content-type`, if it had one.
    pub content_type: Option<HeaderValue>,
    /// At most [`limits::MEMBER_METRICS_BYTES`].
    pub body: Bytes,
}

/// Fetches `path`; the caller sets the time limit.
pub async fn fetch(endpoints: &Endpoints, target: &Target, path: &str) -> io::Result<EtcdPage> {
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
