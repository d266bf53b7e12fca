//! A page that is made: a status, a kind and a body.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// There is nothing at this path, in the words of Go's server.
pub(in crate::server) fn not_found() -> Response<Bytes> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The page is at another path.
pub(in crate::server) fn moved(to: &'static str) -> Response<Bytes> {
    let mut page = plain(StatusCode::MOVED_PERMANENTLY, "");
    page.headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(to));
    page
}

/// Plain text.
pub(in crate::server) fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    made(status, TEXT, Bytes::copy_from_slice(text.as_bytes()))
}

/// Anything.
pub(in crate::server) fn made(
    status: StatusCode,
    kind: HeaderValue,
    body: Bytes,
) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// What the query of an address says of a name first. Names and values here are plain words.
pub(in crate::server) fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(each, _)| *each == name)?;
    Some(value)
}
